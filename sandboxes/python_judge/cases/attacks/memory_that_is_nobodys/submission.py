import os
import posix

for _ in range(40):
    if posix.fork() == 0:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("0")
        files = []
        for _ in range(200):
            files.append(os.memfd_create("x"))
            os.set_inheritable(files[-1], True)
            for _ in range(15):
                os.write(files[-1], b"x" * (1 << 20))
        os.execv("/bin/sleep", ["sleep", "60"])
import time

time.sleep(60)
