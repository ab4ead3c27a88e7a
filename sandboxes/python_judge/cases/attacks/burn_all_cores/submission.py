import posix

for _ in range(40):
    if posix.fork() == 0:
        while True:
            pass
while True:
    pass
