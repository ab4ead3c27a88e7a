"""What every program begins with, and the functions of single values that several share."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def begin(PDL: tl.constexpr):
    """Let the next program start, then wait until the one before has written everything."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def tanh(x):
    """tanh by one exponential, within 1e-7."""
    grown = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - grown) / (1.0 + grown)
    return tl.where(x < 0, -size, size)


@triton.jit
def gelu_tanh(x):
    """The tanh-approximated GELU of a float32."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit
def soft_cap(x, cap):
    """cap * tanh(x / cap)."""
    return cap * tanh(x / cap)
