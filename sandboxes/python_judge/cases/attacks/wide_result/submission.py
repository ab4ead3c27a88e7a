class Solution:
    def f(self, a, b):
        value = "x" * 1000
        for _ in range(60):
            value = [value, value]
        return value
