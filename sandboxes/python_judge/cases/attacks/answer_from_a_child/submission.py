import os
import posix

if posix.fork():
    os._exit(0)
print(input())
