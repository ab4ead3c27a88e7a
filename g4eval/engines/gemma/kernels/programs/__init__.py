"""The programs that run on the card, in Triton: nothing here allocates or launches.

Every program takes `PDL`: started before its predecessor has ended, it may read weights at once,
but waits for the predecessor before it touches what that wrote. All of them wait, so that an ended
program means that everything before it has ended too.
"""
