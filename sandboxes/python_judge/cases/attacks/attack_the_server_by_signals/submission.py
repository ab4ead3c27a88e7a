import posix

for number in range(1, 65):
    try:
        posix.kill(1, number)
    except OSError:
        pass
print("sent")
