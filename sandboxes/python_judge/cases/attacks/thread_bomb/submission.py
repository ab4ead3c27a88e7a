import threading, time

def wait():
    time.sleep(1000)

while True:
    threading.Thread(target=wait, daemon=True).start()
