import socket

socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
print("same")
