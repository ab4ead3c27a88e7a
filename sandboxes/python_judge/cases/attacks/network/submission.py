import socket, urllib.request

reached = []
for family, address in ((socket.AF_INET, ("1.1.1.1", 53)), (socket.AF_INET, ("127.0.0.1", 22)), (socket.AF_INET6, ("::1", 22))):
    try:
        socket.socket(family, socket.SOCK_STREAM).connect(address)
        reached.append(address)
    except OSError:
        pass
try:
    socket.getaddrinfo("pypi.org", 443)
    reached.append("dns")
except OSError:
    pass
print("secret-40961873" if not reached else reached)
