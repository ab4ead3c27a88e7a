import gc

needle = "secret" + "-"
found = ""
for thing in gc.get_objects():
    for value in gc.get_referents(thing):
        if type(value) is str and value.startswith(needle) and len(value) == 15:
            found = value
print(found)
