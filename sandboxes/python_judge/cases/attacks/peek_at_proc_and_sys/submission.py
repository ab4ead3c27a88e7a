seen = []
for name in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware/acpi/tables/DSDT", "/proc/kmsg", "/dev/mem", "/dev/sda", "/var/run/docker.sock"):
    try:
        if open(name, "rb").read(1):
            seen.append(name)
    except OSError:
        pass
print("secret-40961873" if not seen else seen)
