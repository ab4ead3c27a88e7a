try:
    for i in range(100000):
        open("/tmp/inode%d" % i, "w").close()
except OSError as error:
    print("full", error.errno)
