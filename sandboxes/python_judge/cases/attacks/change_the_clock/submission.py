import time

try:
    time.clock_settime(time.CLOCK_REALTIME, 0)
    print("changed")
except OSError:
    print("secret-40961873")
