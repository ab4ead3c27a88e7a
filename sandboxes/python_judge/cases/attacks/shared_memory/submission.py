import ctypes, os, socket

libc = ctypes.CDLL(None, use_errno=True)
worked = []
if libc.shmget(4242, 4096, 0o1666) >= 0:
    worked.append("shmget")
if libc.semget(4242, 1, 0o1666) >= 0:
    worked.append("semget")
if libc.msgget(4242, 0o1666) >= 0:
    worked.append("msgget")
if ctypes.CDLL("librt.so.1", use_errno=True).mq_open(b"/q", 0o102, 0o666, None) >= 0:
    worked.append("mq_open")
try:
    open("/dev/shm/x", "w").close()
    worked.append("/dev/shm")
except OSError:
    pass
name = socket.socket(socket.AF_UNIX)
name.bind("\0left")
print("secret-40961873" if not worked else worked)
