import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
calls = {"x86_64": {"ptrace": 101, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "sethostname": 170,
    "init_module": 175, "keyctl": 250, "add_key": 248, "request_key": 249, "perf_event_open": 298, "bpf": 321,
    "userfaultfd": 323, "io_uring_setup": 425, "unshare": 272, "setns": 308, "kexec_load": 246, "open_by_handle_at": 304,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438, "shmget": 29, "semget": 64,
    "msgget": 68, "mq_open": 240, "quotactl": 179, "acct": 163, "settimeofday": 164, "adjtimex": 159, "clock_settime": 227,
    "pivot_root": 155, "chroot": 161, "iopl": 172, "ioperm": 173, "syslog": 103, "name_to_handle_at": 303,
    "move_pages": 279, "mbind": 237, "vhangup": 153, "fanotify_init": 300, "landlock_create_ruleset": 444}}.get(os.uname().machine, {})
worked = []
for name, number in calls.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, 0, 0, 0, 0, 0)
    if result >= 0 or ctypes.get_errno() not in (1, 38):
        worked.append((name, result, ctypes.get_errno()))
print("secret-40961873" if not worked else worked)
