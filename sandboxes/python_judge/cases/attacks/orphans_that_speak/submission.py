import os, posix, struct, time

if posix.fork() == 0:
    while True:
        try:
            os.write(3, struct.pack(">cII", b"O", 0, 15) + b"secret-40961873")
        except OSError:
            pass
        time.sleep(0.001)
time.sleep(0.1)
print("wrong")
