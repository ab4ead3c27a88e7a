import hashlib
import threading
import time

block = bytes(4 << 20)
threads = [threading.Thread(target=hashlib.sha256, args=(block,)) for _ in range(30)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
time.sleep(60)
