import os

try:
    for i in range(100):
        with open("/tmp/fill%d" % i, "wb") as file:
            for _ in range(15):
                file.write(bytes(1 << 20))
except OSError as error:
    print("full", error.errno)
