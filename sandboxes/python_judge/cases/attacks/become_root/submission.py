import posix

worked = []
for change in (lambda: posix.setresuid(0, 0, 0), lambda: posix.setgroups([0]), lambda: posix.setgid(0)):
    try:
        change()
        worked.append("changed")
    except OSError:
        pass
status = open("/proc/self/status").read()
caps = [line for line in status.splitlines() if line.startswith("Cap") and int(line.split()[1], 16)]
print("secret-40961873" if not worked and not caps and "NoNewPrivs:\t1" in status else (worked, caps))
