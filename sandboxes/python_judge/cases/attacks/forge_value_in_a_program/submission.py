import os, struct

payload = b'{"j": "secret"}'
os.write(3, struct.pack(">cII", b"V", 0, len(payload)) + payload)
