import os

try:
    os.close(os.open("/dev/mqueue/left", os.O_CREAT | os.O_RDWR, 0o666))
    print("left")
except OSError:
    print("refused", os.listdir("/dev/mqueue"))
