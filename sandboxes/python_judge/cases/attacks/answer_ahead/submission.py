import os
import struct

os.write(3, struct.pack(">cII", b"O", 1, 4) + b"same")
print("same")
