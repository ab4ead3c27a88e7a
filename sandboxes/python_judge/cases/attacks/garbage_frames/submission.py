import os

os.write(3, bytes(range(256)) * 40)
