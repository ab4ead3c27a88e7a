import os, struct

os.write(3, struct.pack(">cI", b"O", 0xFFFFFFFF))
