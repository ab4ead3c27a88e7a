"""g4eval: evaluate Gemma 4 however it is served; start reading at `g4eval.pipeline`."""

__version__ = "0.1.0"
