import ctypes, posix

with open("/tmp/run", "w") as file:
    file.write("#!/bin/sh\necho hello\n")
ctypes.CDLL(None).chmod(b"/tmp/run", 0o755)
try:
    posix.execv("/tmp/run", ["run"])
except OSError:
    print("secret-40961873")
