class Solution:
    def f(self, a, b):
        return 1 << 4000000
