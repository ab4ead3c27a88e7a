"""Inputs by the thousand at every border: `nox -s fuzz -- MINUTES`, a short part in the tests.

A border is a place where something from outside comes in. What may happen to an input there: it is
taken, or it is refused with one of `g4eval.errors`. Anything else is a bug of ours (exit 70), as
are ten seconds without an answer, a gigabyte of memory and the end of the process.

To add a border: a module in `borders/` with a list `BORDERS`, and small files in `corpus/NAME/`.
"""
