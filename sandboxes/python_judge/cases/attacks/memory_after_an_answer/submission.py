class Solution:
    def f(self, n):
        if n == 0:
            return 0
        blocks = []
        while True:
            blocks.append(bytearray(b"x" * (64 << 20)))
