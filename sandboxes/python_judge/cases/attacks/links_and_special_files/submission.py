import os

for name, target in (("passwd", "/etc/passwd"), ("proc", "/proc/1"), ("up", "../.."), ("loop", "loop")):
    os.symlink(target, "/tmp/" + name)
os.mkfifo("/tmp/fifo") if False else None
os.makedirs("/tmp/a/b/c")
with open("/tmp/a/b/c/x", "w") as file:
    file.write("x")
os.link("/tmp/a/b/c/x", "/tmp/a/hard")
import posix
posix.chmod("/tmp/a/b", 0)
posix.chmod("/tmp/a", 0)
print("left")
