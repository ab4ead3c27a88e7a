class Error(BaseException):
    pass


raise Error("\ud800\udfff\0\x1b[31m")
