import ctypes

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1, 0, 0, 0)
done = []
if libc.ptrace(16, 1, 0, 0) == 0:
    done.append("attached")
for name in ("/proc/1/mem", "/proc/1/maps", "/proc/1/environ"):
    try:
        open(name, "rb").read(1)
        done.append(name)
    except OSError:
        pass
buffer = ctypes.create_string_buffer(8)
class Vec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
local = Vec(ctypes.cast(buffer, ctypes.c_void_p), 8)
if libc.process_vm_readv(1, ctypes.byref(local), 1, ctypes.byref(local), 1, 0) >= 0:
    done.append("process_vm_readv")
print("secret-40961873" if not done else done)
