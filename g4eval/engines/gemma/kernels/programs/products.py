"""Products of rows with a large weight [N, K] that is read once, at the speed of memory.

`row_product` is for one row: sums in float32 registers, a few weight rows a program. `tile_product`
takes any number of rows through the tensor cores in tiles of one shape, so that what a row gives
depends on no other row. Both read three kinds of weights:

PLAIN: floating point of any width, [N, K].
SCALED: the same, each row times `scale` [N].
GROUPED: 4 bits a value in int32 words [N, K / 8], 32 values a group; value = scale * q - low. Word
4 g + c holds in its nibble j the value 32 g + 4 j + c: a thread that has loaded 16 bytes holds a
whole group and multiplies it by 32 neighbouring x. `scale` [N, K / 32] holds int32 pairs of
float16, the scale in the lower half.

A nibble becomes a float without a conversion: its bits under the exponent of 1 are 1 + q / 16, or
1 + q / 256 four places further down. `Bits` come as arguments, since constants would be spread over
two instructions where one takes registers.
"""

import triton
import triton.language as tl

from g4eval.engines.gemma.kernels.programs.launching import begin, gelu_tanh, soft_cap

PLAIN, SCALED, GROUPED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
# What becomes of a sum: itself, its GELU, or the GELU of one times that of the row N further down.
NONE, GELU, GATED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def nibble(words, j: tl.constexpr):
    """1 + q / 16 for the j-th nibble q of each int32, as float32."""
    moved = words << (19 - 4 * j) if j < 5 else words >> (4 * j - 19)
    return ((moved & 0x780000) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def half_of(pairs, upper: tl.constexpr):
    """The lower or upper float16 of each int32, as float32."""
    bits = pairs >> 16 if upper else pairs
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def plain_sums(
    x_ptr,
    weight_ptr,
    n,
    inside,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Sum x[k] weight[n, k] over k. The first weights are on their way before the wait for x."""
    k = tl.arange(0, BLOCK_K)
    rows = weight_ptr + n.to(tl.int64)[:, None] * K + k[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    if STAGES == 0:
        there = inside[:, None] & (k < K)[None, :]
        weight = tl.load(rows, mask=there, other=0.0, eviction_policy="evict_first")
        begin(PDL)
        for start in tl.range(0, K, BLOCK_K):
            x = tl.load(x_ptr + start + k, mask=start + k < K, other=0.0).to(tl.float32)
            there = inside[:, None] & (start + BLOCK_K + k < K)[None, :]
            coming = tl.load(
                rows + start + BLOCK_K, mask=there, other=0.0, eviction_policy="evict_first"
            )
            total += weight.to(tl.float32) * x[None, :]
            weight = coming
    else:
        begin(PDL)
        for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
            there = inside[:, None] & (start + k < K)[None, :]
            weight = tl.load(rows + start, mask=there, other=0.0, eviction_policy="evict_first")
            x = tl.load(x_ptr + start + k, mask=start + k < K, other=0.0).to(tl.float32)
            total += weight.to(tl.float32) * x[None, :]
    return tl.sum(total, axis=1)


@triton.jit
def grouped_block(
    words,
    pairs,
    x_at,
    there,
    high,
    low,
    one,
    BLOCK_N: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """[BLOCK_N, groups]: what a block of words adds to the sums, in three operations a value."""
    BLOCK_G: tl.constexpr = BLOCK_W // 4
    upper = tl.zeros((BLOCK_N, BLOCK_W), tl.float32)
    lower = tl.zeros((BLOCK_N, BLOCK_W), tl.float32)
    upper_x = tl.zeros((BLOCK_W,), tl.float32)
    lower_x = tl.zeros((BLOCK_W,), tl.float32)
    for j in tl.static_range(0, 8, 2):
        moved = words << (15 - 4 * j) if j < 4 else words >> (4 * j - 15)
        x = tl.load(x_at + 4 * j, mask=there, other=0.0).to(tl.float32)
        lower += ((moved & low) | one).to(tl.float32, bitcast=True) * x[None, :]
        lower_x += x
        x = tl.load(x_at + 4 * j + 4, mask=there, other=0.0).to(tl.float32)
        upper += ((moved & high) | one).to(tl.float32, bitcast=True) * x[None, :]
        upper_x += x
    upper = tl.sum(tl.reshape(upper, (BLOCK_N, BLOCK_G, 4)), axis=2)
    lower = tl.sum(tl.reshape(lower, (BLOCK_N, BLOCK_G, 4)), axis=2)
    upper_x = tl.sum(tl.reshape(upper_x, (BLOCK_G, 4)), axis=1)[None, :]
    lower_x = tl.sum(tl.reshape(lower_x, (BLOCK_G, 4)), axis=1)[None, :]
    product = (upper - upper_x) * 16 + (lower - lower_x) * 256
    return half_of(pairs, False) * product - half_of(pairs, True) * (upper_x + lower_x)


@triton.jit
def grouped_sums(
    x_ptr,
    words_ptr,
    pairs_ptr,
    n,
    inside,
    high,
    low,
    one,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """The same for GROUPED weights; each block is on its way while the one before is used.

    What is left over from whole blocks is used first, in a block of its own.
    """
    WORDS: tl.constexpr = K // 8
    BLOCK_W: tl.constexpr = BLOCK_K // 8
    BLOCKS: tl.constexpr = WORDS // BLOCK_W
    MAIN: tl.constexpr = BLOCKS * BLOCK_W
    REST: tl.constexpr = WORDS - MAIN
    at = n.to(tl.int64)[:, None]
    rows, row_pairs = words_ptr + at * WORDS, pairs_ptr + at * (WORDS // 4)
    if REST > 0:
        REST_W: tl.constexpr = triton.next_power_of_2(REST)
        r, q = tl.arange(0, REST_W), tl.arange(0, REST_W // 4)
        in_rest = inside[:, None] & (r < REST)[None, :]
        rest = tl.load(rows + MAIN + r[None, :], mask=in_rest, other=0)
        in_pairs = inside[:, None] & (q < REST // 4)[None, :]
        rest_pairs = tl.load(row_pairs + MAIN // 4 + q[None, :], mask=in_pairs, other=0)
    i, g = tl.arange(0, BLOCK_W), tl.arange(0, BLOCK_W // 4)
    words_at, pairs_at = rows + i[None, :], row_pairs + g[None, :]
    there = inside[:, None] & (BLOCKS > 0)
    words = tl.load(words_at, mask=there, other=0, eviction_policy="evict_first")
    pairs = tl.load(pairs_at, mask=there, other=0)
    begin(PDL)
    sums = tl.zeros((BLOCK_N,), tl.float32)
    if REST > 0:
        x_at = x_ptr + MAIN * 8 + (r // 4) * 32 + r % 4
        block = grouped_block(rest, rest_pairs, x_at, r < REST, high, low, one, BLOCK_N, REST_W)
        sums += tl.sum(block, axis=1)
    first_x = x_ptr + (i // 4) * 32 + i % 4
    total = tl.zeros((BLOCK_N, BLOCK_W // 4), tl.float32)
    for start in tl.range(0, MAIN, BLOCK_W):
        after = start + BLOCK_W
        more = inside[:, None] & (after < MAIN)
        coming = tl.load(words_at + after, mask=more, other=0, eviction_policy="evict_first")
        coming_pairs = tl.load(pairs_at + after // 4, mask=more, other=0)
        total += grouped_block(
            words, pairs, first_x + start * 8, i < BLOCK_W, high, low, one, BLOCK_N, BLOCK_W
        )
        words, pairs = coming, coming_pairs
    return sums + tl.sum(total, axis=1)


@triton.jit
def row_sums(
    x_ptr,
    weight_ptr,
    scale_ptr,
    n,
    inside,
    high,
    low,
    one,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Sum x[k] weight[n, k] over k for a block of n, whatever the weight's kind."""
    if FORMAT == GROUPED:
        total = grouped_sums(
            x_ptr, weight_ptr, scale_ptr, n, inside, high, low, one, K, BLOCK_N, BLOCK_K, PDL
        )
    else:
        total = plain_sums(x_ptr, weight_ptr, n, inside, K, BLOCK_N, BLOCK_K, STAGES, PDL)
        if FORMAT == SCALED:
            total *= tl.load(scale_ptr + n, mask=inside, other=0.0)
    return total


@triton.jit
def row_product(
    x_ptr,
    weight_ptr,
    scale_ptr,
    factor_ptr,
    out_ptr,
    outputs,
    cap,
    high,
    low,
    one,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    KIND: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """out[n] = kind(sum_k x[k] weight[n, k]) * factor[n]."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < outputs
    value = row_sums(
        x_ptr, weight_ptr, scale_ptr, n, inside, high, low, one,
        K, BLOCK_N, BLOCK_K, FORMAT, STAGES, PDL,
    )  # fmt: skip
    if KIND != NONE:
        value = gelu_tanh(value)
    if KIND == GATED:
        up = n + outputs
        value *= row_sums(
            x_ptr, weight_ptr, scale_ptr, up, inside, high, low, one,
            K, BLOCK_N, BLOCK_K, FORMAT, STAGES, False,
        )  # fmt: skip
    if HAS_CAP:
        value = soft_cap(value, cap)
    if HAS_FACTOR:
        value *= tl.load(factor_ptr + n, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + n, value.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def tile_sums(
    x_ptr,
    weight_ptr,
    scale_ptr,
    m,
    in_m,
    n,
    in_n,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Sum x[m, k] weight[n, k] over k for a tile; x and its row numbers m may be anyone's."""
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    left = x_ptr + m.to(tl.int64)[:, None] * K
    if FORMAT == GROUPED:
        i = tl.arange(0, BLOCK_K // 8)
        at = n.to(tl.int64)[None, :]
        words_at = weight_ptr + at * (K // 8) + i[:, None]
        groups = at * (K // 32) + (i // 4)[:, None]
        first_x = left + ((i // 4) * 32 + i % 4)[None, :]
        for start in tl.range(0, K // 8, BLOCK_K // 8, num_stages=STAGES):
            in_k = start + i < K // 8
            there = in_k[:, None] & in_n[None, :]
            words = tl.load(words_at + start, mask=there, other=0)
            pairs = tl.load(scale_ptr + groups + start // 4, mask=there, other=0)
            scale = half_of(pairs, False) * 16
            low = half_of(pairs, True) + scale
            for j in tl.static_range(8):
                x_there = in_m[:, None] & in_k[None, :]
                x = tl.load(first_x + start * 8 + 4 * j, mask=x_there, other=0.0)
                weight = (nibble(words, j) * scale - low).to(x.dtype)
                total = tl.dot(x, weight, total, input_precision=PRECISION)
    else:
        k = tl.arange(0, BLOCK_K)
        left += k[None, :]
        right = weight_ptr + n.to(tl.int64)[None, :] * K + k[:, None]
        for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
            in_k = start + k < K
            x = tl.load(left + start, mask=in_m[:, None] & in_k[None, :], other=0.0)
            weight = tl.load(right + start, mask=in_k[:, None] & in_n[None, :], other=0.0)
            total = tl.dot(x, weight.to(x.dtype), total, input_precision=PRECISION)
        if FORMAT == SCALED:
            total *= tl.load(scale_ptr + n, mask=in_n, other=0.0)[None, :]
    return total


@triton.jit
def tile_product(
    x_ptr,
    weight_ptr,
    scale_ptr,
    factor_ptr,
    out_ptr,
    row_count,
    outputs,
    cap,
    factor_stride,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    KIND: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_CAP: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """out[m, n] = kind(sum_k x[m, k] weight[n, k]) * factor[m, n]."""
    row_tiles = tl.cdiv(row_count, BLOCK_M)
    m = (tl.program_id(0) % row_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (tl.program_id(0) // row_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = m < row_count, n < outputs
    begin(PDL)
    value = tile_sums(
        x_ptr, weight_ptr, scale_ptr, m, in_m, n, in_n,
        K, BLOCK_M, BLOCK_N, BLOCK_K, FORMAT, PRECISION, STAGES,
    )  # fmt: skip
    if KIND != NONE:
        value = gelu_tanh(value)
    if KIND == GATED:
        value *= tile_sums(
            x_ptr, weight_ptr, scale_ptr, m, in_m, n + outputs, in_n,
            K, BLOCK_M, BLOCK_N, BLOCK_K, FORMAT, PRECISION, STAGES,
        )  # fmt: skip
    if HAS_CAP:
        value = soft_cap(value, cap)
    at = m.to(tl.int64)[:, None]
    there = in_m[:, None] & in_n[None, :]
    if HAS_FACTOR:
        factor = tl.load(factor_ptr + at * factor_stride + n[None, :], mask=there, other=0.0)
        value *= factor.to(tl.float32)
    tl.store(out_ptr + at * outputs + n[None, :], value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def gate(both_ptr, out_ptr, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out [R, F] = gelu(gate) * up of rows [R, 2 F]."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    begin(PDL)
    left = tl.load(both_ptr + row * 2 * width + column, mask=there, other=0.0).to(tl.float32)
    right = tl.load(both_ptr + row * 2 * width + width + column, mask=there, other=0.0)
    value = gelu_tanh(left) * right.to(tl.float32)
    tl.store(out_ptr + row * width + column, value.to(out_ptr.dtype.element_ty), mask=there)
