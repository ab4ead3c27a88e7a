"""From logits to a token on the card: cuts, shares and the draw, each row alone.

`largest` looks through the vocabulary once: the largest logit of every block of 256. `draw` then
needs few blocks: the `most` largest logits lie in the blocks with the `most` largest maxima.
"""

import triton
import triton.language as tl

from g4eval.engines.gemma.kernels.programs.launching import begin


@triton.jit
def largest(
    logits_ptr, best_ptr, vocabulary, BLOCKS: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr
):
    """best [R, blocks]: the largest of each WIDTH logits; BLOCKS of them a program."""
    row = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    column = block[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    begin(PDL)
    logits = tl.load(
        logits_ptr + row * vocabulary + column, mask=column < vocabulary, other=float("-inf")
    )
    count = tl.cdiv(vocabulary, WIDTH)
    tl.store(best_ptr + row * count + block, tl.max(logits, axis=1), mask=block < count)


@triton.jit
def ordered_key(values, ids):
    """int64 that sorts as the values do; of equals the smaller id is the larger key."""
    bits = values.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (bits.to(tl.int64) << 32) | (0x7FFFFFFF - ids).to(tl.int64)


@triton.jit
def draw(
    logits_ptr,
    best_ptr,
    scratch_ptr,
    uniform_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    token_ptr,
    vocabulary,
    BLOCKS: tl.constexpr,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    ROOM: tl.constexpr,
    PDL: tl.constexpr,
):
    """Draw a row's token with its own uniform number.

    top_k of 1 to MOST; temperature 0 takes the best. Source: `Sampler` of sampling.py, whose
    float64 sums these are.
    """
    row = tl.program_id(0)
    b = tl.arange(0, BLOCKS)
    count = tl.cdiv(vocabulary, WIDTH)
    begin(PDL)
    at = row.to(tl.int64)
    best = tl.load(best_ptr + at * count + b, mask=b < count, other=float("-inf"))
    keys = tl.topk(ordered_key(best, b), MOST)
    blocks = 0x7FFFFFFF - (keys & 0x7FFFFFFF).to(tl.int32)
    # The smallest of those maxima: MOST logits at least are no smaller.
    floor = tl.min(keys, axis=0) >> 32
    column = blocks[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    logits = tl.load(
        logits_ptr + at * vocabulary + column,
        mask=(blocks < count)[:, None] & (column < vocabulary),
        other=float("-inf"),
    )
    found = tl.reshape(ordered_key(logits, column), (MOST * WIDTH,))
    there = (found >> 32) >= floor
    place = tl.cumsum(there.to(tl.int32), axis=0) - 1
    tl.store(scratch_ptr + at * MOST * WIDTH + place, found, mask=there)
    total = tl.sum(there.to(tl.int32), axis=0)
    tl.debug_barrier()
    r = tl.arange(0, ROOM)
    kept = tl.load(scratch_ptr + at * MOST * WIDTH + r, mask=r < total, other=-0x7FFFFFFFFFFFFFFF)
    kept = tl.topk(kept, MOST)
    for start in range(ROOM, total, ROOM):  # many equal logits: rare
        more = tl.load(
            scratch_ptr + at * MOST * WIDTH + start + r,
            mask=start + r < total,
            other=-0x7FFFFFFFFFFFFFFF,
        )
        kept = tl.topk(tl.reshape(tl.join(kept, tl.topk(more, MOST)), (2 * MOST,)), MOST)
    ids = 0x7FFFFFFF - (kept & 0x7FFFFFFF).to(tl.int32)
    temperature = tl.load(temperature_ptr + row)
    rank = tl.arange(0, MOST)
    top_k = tl.where(temperature > 0, tl.load(top_k_ptr + row), 1)
    bits = (kept >> 32).to(tl.int32)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    value = bits.to(tl.float32, bitcast=True).to(tl.float64)
    value = value / tl.where(temperature > 0, temperature, 1.0).to(tl.float64)
    inside = (rank < top_k) & (value > float("-inf"))
    shares = tl.where(inside, tl.exp(value - tl.max(value, axis=0)), 0.0)
    shares = shares / tl.sum(shares, axis=0)
    before = tl.cumsum(shares, axis=0) - shares
    least = tl.load(min_p_ptr + row) * tl.max(shares, axis=0)
    inside &= ((before < tl.load(top_p_ptr + row)) & (shares >= least)) | (rank == 0)
    shares = tl.where(inside, shares, 0.0)
    reached = tl.cumsum(shares, axis=0)
    target = tl.load(uniform_ptr + row) * tl.max(reached, axis=0)
    chosen = tl.sum((reached <= target).to(tl.int32), axis=0)
    chosen = tl.minimum(chosen, tl.sum((shares > 0).to(tl.int32), axis=0) - 1)
    tl.store(token_ptr + row, tl.sum(tl.where(rank == chosen, ids, 0), axis=0))
