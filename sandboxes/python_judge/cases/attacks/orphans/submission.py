import os, posix, signal, time

for _ in range(10):
    if posix.fork() == 0:
        os.setsid()
        if posix.fork() == 0:
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            while True:
                time.sleep(0.01)
        os._exit(0)
print("left")
