import os
import struct

os.write(3, struct.pack(">cII", b"O", 0, 4) + b"same")
os.write(3, struct.pack(">cII", b"O", 0, 4) + b"same")
