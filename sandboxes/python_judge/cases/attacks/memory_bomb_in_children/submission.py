import posix

for _ in range(30):
    if posix.fork() == 0:
        break
block = bytearray(400 << 20)
for i in range(0, len(block), 4096):
    block[i] = 1
while True:
    pass
