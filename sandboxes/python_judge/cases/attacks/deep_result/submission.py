class Solution:
    def f(self, a, b):
        value = []
        for _ in range(200000):
            value = [value]
        return value
