import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
worked = []
numbers = {"x86_64": (56, 435, 272), "aarch64": (220, 435, 97)}[os.uname().machine]
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
    result = libc.syscall(numbers[0], flag | 17, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result > 0:
        worked.append(("clone", hex(flag)))
    if libc.unshare(flag) == 0:
        worked.append(("unshare", hex(flag)))
print("secret-40961873" if not worked else worked)
