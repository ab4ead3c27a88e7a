import os

worked = []
for folder in ("/", "/judge", "/judge/sandboxes/python_judge", "/usr/lib", "/etc", "/var", "/home", "/dev", "/run", "/proc", "/sys"):
    try:
        open(os.path.join(folder, "mine"), "w").close()
        worked.append(folder)
    except OSError:
        pass
print("secret-40961873" if not worked else worked)
