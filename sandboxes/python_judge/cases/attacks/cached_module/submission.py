for name in ("heapq", "numpy", "sitecustomize", "random"):
    with open("/tmp/%s.py" % name, "w") as file:
        file.write("raise SystemExit\n")
print("left")
