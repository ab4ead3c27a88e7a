import fcntl
import signal
import socket

ours, theirs = socket.socketpair()
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCHLD):
    fcntl.fcntl(ours, fcntl.F_SETSIG, number)
    try:
        fcntl.fcntl(ours, fcntl.F_SETOWN, 1)
    except OSError:
        pass
    fcntl.fcntl(ours, fcntl.F_SETFL, fcntl.fcntl(ours, fcntl.F_GETFL) | 0o20000)
    for _ in range(5):
        theirs.send(b"x")
print("sent")
