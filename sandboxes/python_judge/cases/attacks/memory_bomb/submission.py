blocks = []
while True:
    blocks.append(bytearray(64 << 20))
    for i in range(0, len(blocks[-1]), 4096):
        blocks[-1][i] = 1
