import os, struct

for descriptor in range(3, 256):
    try:
        os.write(descriptor, struct.pack(">cII", b"D", 0, 0))
    except OSError:
        pass
