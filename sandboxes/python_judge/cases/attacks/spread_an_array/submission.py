import numpy


class Solution:
    def f(self, n):
        return numpy.ones((4_000_000, 1), dtype=bool)
