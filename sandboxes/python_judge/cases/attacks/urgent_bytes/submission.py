import socket

channel = socket.socket(fileno=3)
try:
    channel.send(b"x", socket.MSG_OOB)
except OSError:
    pass
channel.detach()
while True:
    pass
