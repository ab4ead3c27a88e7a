import array
import os
import posix
import socket

one, other = socket.socketpair()
file = os.open("/tmp/x", os.O_RDWR | os.O_CREAT)
os.write(file, bytes(8 << 20))
posix.unlink("/tmp/x")
cycle = array.array("i", [file, one.fileno(), other.fileno()])
for _ in range(3):
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, cycle)])
print("right")
