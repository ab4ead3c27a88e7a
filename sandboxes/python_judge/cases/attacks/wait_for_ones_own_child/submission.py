import os
import posix
import time

child = posix.fork()
if child == 0:
    while True:
        pass
end = time.monotonic() + 0.9
while time.monotonic() < end:
    pass
posix.kill(child, 9)
os.waitpid(child, 0)
time.sleep(60)
