import os
import posix
import struct
import time

if posix.fork() == 0:
    os.write(3, struct.pack(">cII", b"O", 0, 5) + b"right")
    os._exit(0)
time.sleep(0.3)
print("wrong")
