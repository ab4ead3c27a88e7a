import os
import signal
import struct
import time

signal.setitimer(signal.ITIMER_REAL, 0)
time.sleep(0.9)
os.write(3, struct.pack(">cII", b"A", 0, 0))
time.sleep(1.5)
print("same")
