import os
import posix

child = posix.fork()
if child == 0:
    blocks = []
    while True:
        blocks.append(bytearray(64 << 20))
posix.waitpid(child, 0)
print("right")
