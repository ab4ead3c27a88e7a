import os, sys

for _ in range(2000):
    os.write(2, b"x" * 100000)
print("x", file=sys.stderr)
print("done")
