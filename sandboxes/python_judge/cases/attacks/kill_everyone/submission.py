import posix

posix.kill(-1, 9)
print("alive")
