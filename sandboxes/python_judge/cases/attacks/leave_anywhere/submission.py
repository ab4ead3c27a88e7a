import os

places = []
for folder, inside, _ in os.walk("/"):
    if folder in ("/proc", "/sys", "/tmp"):
        inside.clear()
        continue
    try:
        os.close(os.open(folder + "/left", os.O_CREAT | os.O_WRONLY))
        places.append(folder)
    except OSError:
        pass
print(places)
