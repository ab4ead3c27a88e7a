import os

os.kill is None
os.abort()
