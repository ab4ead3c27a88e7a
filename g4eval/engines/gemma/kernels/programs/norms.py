"""Norms of rows, with the residual they are added to and the norm that comes next."""

import triton
import triton.language as tl

from g4eval.engines.gemma.kernels.programs.launching import begin


@triton.jit
def normed(x, width, eps):
    """x over the root of its mean square; x is 0 behind its width."""
    return x * tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)


@triton.jit
def add_norm(
    x_ptr,
    branch_ptr,
    branch_weight_ptr,
    scalar_ptr,
    first_weight_ptr,
    second_weight_ptr,
    sum_ptr,
    first_ptr,
    second_ptr,
    width,
    eps,
    HAS_BRANCH: tl.constexpr,
    HAS_SCALAR: tl.constexpr,
    NEXT: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """sum = (x + norm(branch)) * scalar; first = norm(sum), and so second; a row a program."""
    column = tl.arange(0, BLOCK)
    there = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    kind = sum_ptr.dtype.element_ty
    # Weights first: they come from far, and no other program writes them.
    branch_weight = tl.load(branch_weight_ptr + column, mask=there & HAS_BRANCH, other=0.0)
    first_weight = tl.load(first_weight_ptr + column, mask=there & (NEXT > 0), other=0.0)
    second_weight = tl.load(second_weight_ptr + column, mask=there & (NEXT > 1), other=0.0)
    begin(PDL)
    x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        branch = tl.load(branch_ptr + at, mask=there, other=0.0).to(tl.float32)
        branch = normed(branch, width, eps) * branch_weight
        x = (branch.to(kind).to(tl.float32) + x).to(kind).to(tl.float32)
        if HAS_SCALAR:
            x = (x * tl.load(scalar_ptr).to(tl.float32)).to(kind).to(tl.float32)
        tl.store(sum_ptr + at, x.to(kind), mask=there)
    if NEXT > 0:
        even = normed(x, width, eps)
        tl.store(first_ptr + at, (even * first_weight).to(kind), mask=there)
        if NEXT > 1:
            tl.store(second_ptr + at, (even * second_weight).to(kind), mask=there)


@triton.jit
def sum_of_norms(
    left_ptr,
    left_weight_ptr,
    right_ptr,
    right_weight_ptr,
    out_ptr,
    width,
    eps,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """out = norm(left) + norm(right), each rounded by itself; a row a program."""
    column = tl.arange(0, BLOCK)
    there = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    kind = out_ptr.dtype.element_ty
    left_weight = tl.load(left_weight_ptr + column, mask=there, other=0.0)
    right_weight = tl.load(right_weight_ptr + column, mask=there, other=0.0)
    begin(PDL)
    left = tl.load(left_ptr + at, mask=there, other=0.0).to(tl.float32)
    left = normed(left, width, eps) * left_weight
    right = tl.load(right_ptr + at, mask=there, other=0.0).to(tl.float32)
    right = normed(right, width, eps) * right_weight
    total = left.to(kind).to(tl.float32) + right.to(kind).to(tl.float32)
    tl.store(out_ptr + at, total.to(kind), mask=there)
