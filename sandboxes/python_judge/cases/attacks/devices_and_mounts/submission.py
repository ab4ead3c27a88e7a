import ctypes, os, posix

libc = ctypes.CDLL(None, use_errno=True)
worked = []
if libc.mknod(b"/tmp/disk", 0o60666, (8 << 8)) == 0:
    worked.append("mknod")
if libc.mount(b"proc", b"/tmp", b"proc", 0, None) == 0:
    worked.append("mount")
for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"):
    try:
        os.mkdir(folder + "/mine")
        worked.append(folder)
    except OSError:
        pass
for name in ("/sys/fs/cgroup/release_agent", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try:
        open(name, "w").write("x")
        worked.append(name)
    except OSError:
        pass
print("secret-40961873" if not worked else worked)
