"""An independent simulator of the error rates that g4eval states. It shares no code with the gate.

`python -m benchmarks.gate_sim` (`nox -s gate-sim`); truths.py draws runs, cells.py lists what is
simulated, doors.py asks g4eval, in process and by its command line.
"""
