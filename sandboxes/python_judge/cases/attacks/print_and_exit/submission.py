import os

if input() == "1":
    os._exit(0)
print("same")
