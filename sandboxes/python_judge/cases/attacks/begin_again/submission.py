import os
import struct

os.write(3, struct.pack(">cII", b"G", 0, 0))
print("same")
