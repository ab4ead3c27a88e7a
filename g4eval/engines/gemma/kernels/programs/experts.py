"""The mixture of experts: choosing, sorting and the products of each row's own experts.

A choice c is row c // A's (c % A)-th expert, A of them a row. Products of few rows go choice by
choice; those of many go tile by tile, a tile holding choices of one expert only.
"""

import triton
import triton.language as tl

from g4eval.engines.gemma.kernels.programs.launching import begin, gelu_tanh
from g4eval.engines.gemma.kernels.programs.products import PLAIN, plain_sums, tile_sums


@triton.jit
def route(
    logits_ptr,
    expert_scale_ptr,
    weights_ptr,
    chosen_ptr,
    EXPERTS: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Choose a row's A likeliest experts; weights sum to 1 before each is scaled."""
    row = tl.program_id(0)
    e = tl.arange(0, BLOCK)
    begin(PDL)
    logits = tl.load(logits_ptr + row * EXPERTS + e, mask=e < EXPERTS, other=float("-inf"))
    logits = logits.to(tl.float32)
    shares = tl.exp(logits - tl.max(logits, axis=0))
    shares = shares / tl.sum(shares, axis=0)
    rest = tl.where(e < EXPERTS, shares, -1.0)
    total = 0.0
    for _ in tl.static_range(A):
        best = tl.argmax(rest, axis=0)
        total += tl.sum(tl.where(e == best, rest, 0.0), axis=0)
        rest = tl.where(e == best, -1.0, rest)
    rest = tl.where(e < EXPERTS, shares, -1.0)
    for a in tl.static_range(A):
        best = tl.argmax(rest, axis=0)
        share = tl.sum(tl.where(e == best, rest, 0.0), axis=0)
        tl.store(chosen_ptr + row * A + a, best)
        tl.store(weights_ptr + row * A + a, share / total * tl.load(expert_scale_ptr + best))
        rest = tl.where(e == best, -1.0, rest)


@triton.jit
def choice_gate_up(
    x_ptr,
    weight_ptr,
    chosen_ptr,
    out_ptr,
    K: tl.constexpr,
    F: tl.constexpr,
    A: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [R * A, F]: gelu(gate) * up of each choice; weight [E, 2 F, K]."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    choice = tl.program_id(1)
    begin(PDL)
    expert = tl.load(chosen_ptr + choice)
    weight_ptr += expert.to(tl.int64) * 2 * F * K
    x_ptr += (choice // A).to(tl.int64) * K
    gate = plain_sums(x_ptr, weight_ptr, n, n < F, K, BLOCK_N, BLOCK_K, STAGES, False)
    up = plain_sums(x_ptr, weight_ptr, n + F, n < F, K, BLOCK_N, BLOCK_K, STAGES, False)
    out = gelu_tanh(gate) * up
    tl.store(out_ptr + choice.to(tl.int64) * F + n, out.to(out_ptr.dtype.element_ty), mask=n < F)


@triton.jit
def choices_down(
    x_ptr,
    weight_ptr,
    chosen_ptr,
    share_ptr,
    out_ptr,
    outputs,
    F: tl.constexpr,
    A: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [R, D]: the weighted sum of a row's experts, in the order they were chosen."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1)
    inside = n < outputs
    begin(PDL)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for a in tl.range(A):
        choice = row * A + a
        expert = tl.load(chosen_ptr + choice).to(tl.int64)
        value = plain_sums(
            x_ptr + choice.to(tl.int64) * F,
            weight_ptr + expert * outputs * F,
            n, inside, F, BLOCK_N, BLOCK_K, STAGES, False,
        )  # fmt: skip
        total += value * tl.load(share_ptr + choice)
    out = out_ptr + row.to(tl.int64) * outputs + n
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def count_choices(chosen_ptr, count_ptr, choices, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """count[e]: how many choices fell on this program's expert."""
    expert = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    begin(PDL)
    count = 0
    for start in range(0, choices, BLOCK):
        chosen = tl.load(chosen_ptr + start + i, mask=start + i < choices, other=-1)
        count += tl.sum((chosen == expert).to(tl.int32), axis=0)
    tl.store(count_ptr + expert, count)


@triton.jit
def sort_choices(
    chosen_ptr,
    count_ptr,
    sorted_ptr,
    tile_expert_ptr,
    choices,
    tiles,
    EXPERTS: tl.constexpr,
    EXPERT_BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Give each expert whole tiles of TILE choices: `sorted` [tiles * TILE], -1 where none is.

    Program e places expert e's choices, in order; the last one also marks the tiles left over.
    """
    expert = tl.program_id(0)
    e, i, t = tl.arange(0, EXPERT_BLOCK), tl.arange(0, BLOCK), tl.arange(0, TILE)
    begin(PDL)
    counts = tl.load(count_ptr + e, mask=e < EXPERTS, other=0)
    own_tiles = (counts + TILE - 1) // TILE
    first = tl.sum(tl.where(e < expert, own_tiles, 0), axis=0)
    after = first + tl.sum(tl.where(e == expert, own_tiles, 0), axis=0)
    for tile in range(first, after):
        tl.store(tile_expert_ptr + tile, expert)
    if expert == EXPERTS - 1:
        for tile in range(after, tiles):
            tl.store(tile_expert_ptr + tile, -1)
    placed = 0
    for start in range(0, choices, BLOCK):
        chosen = tl.load(chosen_ptr + start + i, mask=start + i < choices, other=-1)
        own = chosen == expert
        rank = tl.cumsum(own.to(tl.int32), axis=0) - 1
        tl.store(sorted_ptr + first * TILE + placed + rank, start + i, mask=own)
        placed += tl.sum(own.to(tl.int32), axis=0)
    if after > first:
        rest = (after - 1) * TILE + t
        tl.store(sorted_ptr + rest, -1, mask=rest >= first * TILE + placed)


@triton.jit
def tile_experts(
    x_ptr,
    weight_ptr,
    sorted_ptr,
    tile_expert_ptr,
    share_ptr,
    out_ptr,
    outputs,
    K: tl.constexpr,
    A: tl.constexpr,
    IS_DOWN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile of choices of one expert: gelu(gate) * up of their rows, or down times their share.

    Up: x [R, K], weight [E, 2 outputs, K]. Down: x [R * A, K], weight [E, outputs, K]. `out`
    [R * A, outputs], by choice.
    """
    tile = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_n = n < outputs
    begin(PDL)
    expert = tl.load(tile_expert_ptr + tile)
    if expert >= 0:
        choice = tl.load(sorted_ptr + tile * BLOCK_M + tl.arange(0, BLOCK_M))
        in_m = choice >= 0
        if IS_DOWN:
            weight_ptr += expert.to(tl.int64) * outputs * K
            value = tile_sums(
                x_ptr, weight_ptr, weight_ptr, choice, in_m, n, in_n,
                K, BLOCK_M, BLOCK_N, BLOCK_K, PLAIN, PRECISION, STAGES,
            )  # fmt: skip
            value *= tl.load(share_ptr + choice, mask=in_m, other=0.0)[:, None]
        else:
            weight_ptr += expert.to(tl.int64) * 2 * outputs * K
            gate = tile_sums(
                x_ptr, weight_ptr, weight_ptr, choice // A, in_m, n, in_n,
                K, BLOCK_M, BLOCK_N, BLOCK_K, PLAIN, PRECISION, STAGES,
            )  # fmt: skip
            up = tile_sums(
                x_ptr, weight_ptr, weight_ptr, choice // A, in_m, n + outputs, in_n,
                K, BLOCK_M, BLOCK_N, BLOCK_K, PLAIN, PRECISION, STAGES,
            )  # fmt: skip
            value = gelu_tanh(gate) * up
        out = out_ptr + choice.to(tl.int64)[:, None] * outputs + n[None, :]
        tl.store(out, value.to(out_ptr.dtype.element_ty), mask=in_m[:, None] & in_n[None, :])


@triton.jit
def sum_choices(x_ptr, out_ptr, width, A: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out [R, D]: the sum of each row's A values, in the order they were chosen."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    begin(PDL)
    total = tl.zeros((BLOCK,), tl.float32)
    for a in tl.static_range(A):
        x = tl.load(x_ptr + (row * A + a) * width + column, mask=there, other=0.0)
        total += x.to(tl.float32)
    tl.store(out_ptr + row * width + column, total.to(out_ptr.dtype.element_ty), mask=there)
