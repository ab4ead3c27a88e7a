import os, struct

payload = b'{"j": "secret"}'
os.write(3, struct.pack(">cI", b"V", len(payload)) + payload)
