import ctypes
import time

CLONE_PARENT, SIGCHLD, CLONE = 0x8000, 17, {"x86_64": 56, "aarch64": 220}
import platform

libc = ctypes.CDLL(None)
for _ in range(20):
    if libc.syscall(CLONE[platform.machine()], CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0:
        while True:
            time.sleep(1)
print("right")
