with open("/tmp/big", "wb") as file:
    file.truncate(1 << 40)
