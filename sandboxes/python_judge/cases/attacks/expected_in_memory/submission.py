import re

needle = re.compile(b"secret" + b"-[0-9]{8}")
found = b""
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        span, flags = line.split()[:2]
        if not flags.startswith("rw"):
            continue
        start, end = (int(x, 16) for x in span.split("-"))
        try:
            memory.seek(start)
            match = needle.search(memory.read(min(end - start, 64 << 20)))
        except (OSError, OverflowError):
            continue
        if match:
            found = match[0]
            break
print(found.decode())
