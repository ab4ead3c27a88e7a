"""Heads and attention over a paged cache.

Keys and values of a layer lie in pages [pages, K, PAGE, H]; `table` [slots, most pages] says where
the page p of a slot lies. A query at position i of a sliding layer sees i - window < j <= i, of a
full one (window 0) every j <= i. Blocks of keys begin at multiples of their size whatever the
query, so a query's sums are formed in one order whoever travels with it.

Positions, slots and tables are there before the first program of a pass starts: ordinary launches,
which start nothing early, write them. So they are read before the wait.
"""

import triton
import triton.language as tl

from g4eval.engines.gemma.kernels.programs.launching import begin


@triton.jit
def heads(
    projected_ptr,
    norm_ptr,
    frequency_ptr,
    position_ptr,
    slot_ptr,
    table_ptr,
    query_ptr,
    keys_ptr,
    values_ptr,
    eps,
    table_width,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    VALUE_IS_KEY: tl.constexpr,
    NORM_VALUES: tl.constexpr,
    H: tl.constexpr,
    PAGE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Norm and rotate a head of a row; queries go to `query`, keys and values to their page."""
    row, head = tl.program_id(0), tl.program_id(1)
    half: tl.constexpr = H // 2
    i = tl.arange(0, half)
    frequency = tl.load(frequency_ptr + i)
    position = tl.load(position_ptr + row)
    place = row.to(tl.int64) * 0
    if head >= QUERIES:
        page = tl.load(table_ptr + tl.load(slot_ptr + row) * table_width + position // PAGE)
        kv_head = (head - QUERIES) % KEYS
        place = ((page.to(tl.int64) * KEYS + kv_head) * PAGE + position % PAGE) * H
    weight = norm_ptr + tl.minimum(head, QUERIES + KEYS - 1) * H + i  # a value's is not used
    left_weight = tl.load(weight)
    right_weight = tl.load(weight + half)
    begin(PDL)
    source = projected_ptr + (row.to(tl.int64) * (QUERIES + KEYS + VALUES) + head) * H
    left = tl.load(source + i).to(tl.float32)
    right = tl.load(source + half + i).to(tl.float32)
    kind = query_ptr.dtype.element_ty
    root = tl.rsqrt((tl.sum(left * left, axis=0) + tl.sum(right * right, axis=0)) / H + eps)
    if head < QUERIES + KEYS:
        a = (left * root * left_weight).to(kind).to(tl.float32)
        b = (right * root * right_weight).to(kind).to(tl.float32)
        angle = position.to(tl.float32) * frequency
        cosine = tl.cos(angle).to(kind).to(tl.float32)
        sine = tl.sin(angle).to(kind).to(tl.float32)
        target = query_ptr + (row.to(tl.int64) * QUERIES + head) * H
        if head >= QUERIES:
            target = keys_ptr + place
        tl.store(target + i, (a * cosine - b * sine).to(kind))
        tl.store(target + half + i, (b * cosine + a * sine).to(kind))
    if (head >= QUERIES + KEYS) | (VALUE_IS_KEY & (head >= QUERIES)):
        if NORM_VALUES:
            left *= root
            right *= root
        tl.store(values_ptr + place + i, left.to(kind))
        tl.store(values_ptr + place + half + i, right.to(kind))


@triton.jit
def attend_block(
    query,
    keys_ptr,
    values_ptr,
    page_start,
    start,
    visible_from,
    visible_to,
    best,
    total,
    summed,
    scale,
    H: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take the keys at `start` and the BLOCK_S - 1 after it into a running softmax.

    query [M, H]; `page_start`: where the first key's values begin; a row sees the keys from
    `visible_from` [M] to `visible_to` [M].
    """
    s, h = tl.arange(0, BLOCK_S), tl.arange(0, H)
    position = start + s
    at = page_start + s[:, None] * H + h[None, :]
    keys = tl.load(keys_ptr + at)
    scores = tl.dot(query, tl.trans(keys), input_precision=PRECISION) * scale
    seen = (position[None, :] >= visible_from[:, None]) & (position[None, :] <= visible_to[:, None])
    scores = tl.where(seen, scores, float("-inf"))
    better = tl.maximum(best, tl.max(scores, axis=1))
    anchor = tl.where(better == float("-inf"), 0.0, better)  # nothing seen yet
    weights = tl.exp(scores - anchor[:, None])
    faded = tl.exp(best - anchor)
    total = total * faded + tl.sum(weights, axis=1)
    # What this request never wrote may be anything, and 0 times NaN is NaN.
    some = (position >= tl.min(visible_from, axis=0)) & (position <= tl.max(visible_to, axis=0))
    values = tl.load(values_ptr + at, mask=some[:, None], other=0.0)
    summed = summed * faded[:, None]
    summed = tl.dot(weights.to(values.dtype), values, summed, input_precision=PRECISION)
    return better, total, summed


@triton.jit
def attend_decoding(
    query_ptr,
    keys_ptr,
    values_ptr,
    position_ptr,
    slot_ptr,
    table_ptr,
    out_ptr,
    part_ptr,
    stats_ptr,
    scale,
    table_width,
    window,
    splits,
    G: tl.constexpr,
    H: tl.constexpr,
    PAGE: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row's queries of one KV head over one stretch of SPLIT keys.

    WHOLE: there is one stretch, and its result goes to `out`. Else `part` [R, N, splits, H] gets
    the sums and `stats` [R, N, splits, 2] the total and the largest score, for `join_splits`.
    """
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    g, h = tl.arange(0, BLOCK_M), tl.arange(0, H)
    in_g = g < G
    last = tl.load(position_ptr + row)
    pages = table_ptr + tl.load(slot_ptr + row) * table_width
    first = tl.where(window > 0, tl.maximum(last - window + 1, 0), 0)
    start = (first // SPLIT + split) * SPLIT
    if WHOLE:
        start = first // BLOCK_S * BLOCK_S
        stop = last + 1
    else:
        stop = tl.minimum(start + SPLIT, last + 1)
        start = tl.maximum(start, first // BLOCK_S * BLOCK_S)
    begin(PDL)
    if start < stop:
        head = (row.to(tl.int64) * kv_heads + kv_head) * G + g
        query = tl.load(query_ptr + head[:, None] * H + h[None, :], mask=in_g[:, None], other=0.0)
        visible_from = tl.full((BLOCK_M,), 0, tl.int32) + first.to(tl.int32)
        visible_to = tl.full((BLOCK_M,), 0, tl.int32) + last.to(tl.int32)
        best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        summed = tl.zeros((BLOCK_M, H), tl.float32)
        for at in tl.range(start, stop, BLOCK_S, num_stages=STAGES):
            page = tl.load(pages + at // PAGE).to(tl.int64)
            page_start = ((page * kv_heads + kv_head) * PAGE + at % PAGE) * H
            best, total, summed = attend_block(
                query, keys_ptr, values_ptr, page_start, at, visible_from, visible_to,
                best, total, summed, scale, H, BLOCK_S, PRECISION,
            )  # fmt: skip
        if WHOLE:
            out = summed / total[:, None]
            tl.store(
                out_ptr + head[:, None] * H + h[None, :],
                out.to(out_ptr.dtype.element_ty),
                mask=in_g[:, None],
            )
        else:
            part = head * splits + split
            tl.store(part_ptr + part[:, None] * H + h[None, :], summed, mask=in_g[:, None])
            tl.store(stats_ptr + part * 2, total, mask=in_g)
            tl.store(stats_ptr + part * 2 + 1, best, mask=in_g)


@triton.jit
def join_splits(
    part_ptr,
    stats_ptr,
    position_ptr,
    out_ptr,
    window,
    splits,
    H: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
):
    """Put the stretches of a row's query head together, sixteen at a time, first to last."""
    row, head = tl.program_id(0), tl.program_id(1)
    h, i = tl.arange(0, H), tl.arange(0, 16)
    at = row.to(tl.int64) * tl.num_programs(1) + head
    last = tl.load(position_ptr + row)
    first = tl.where(window > 0, tl.maximum(last - window + 1, 0), 0)
    begin(PDL)
    count = last // SPLIT - first // SPLIT + 1
    best = float("-inf")
    total = 0.0
    summed = tl.zeros((H,), tl.float32)
    for start in range(0, count, 16):
        there = start + i < count
        part = at * splits + start + i
        own_best = tl.load(stats_ptr + part * 2 + 1, mask=there, other=float("-inf"))
        own_total = tl.load(stats_ptr + part * 2, mask=there, other=0.0)
        own = tl.load(part_ptr + part[:, None] * H + h[None, :], mask=there[:, None], other=0.0)
        better = tl.maximum(best, tl.max(own_best, axis=0))
        faded, kept = tl.exp(best - better), tl.exp(own_best - better)
        total = total * faded + tl.sum(own_total * kept, axis=0)
        summed = summed * faded + tl.sum(own * kept[:, None], axis=0)
        best = better
    tl.store(out_ptr + at * H + h, (summed / total).to(out_ptr.dtype.element_ty))


@triton.jit
def attend_chunks(
    query_ptr,
    keys_ptr,
    values_ptr,
    chunk_ptr,
    table_ptr,
    out_ptr,
    scale,
    table_width,
    window,
    N: tl.constexpr,
    G: tl.constexpr,
    H: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile of a chunk's rows, one query head; `chunk` [n, 4]: first row, rows, start, slot."""
    head, chunk = tl.program_id(1), tl.program_id(2)
    begin(PDL)
    first_row = tl.load(chunk_ptr + chunk * 4)
    length = tl.load(chunk_ptr + chunk * 4 + 1)
    # The last tiles see the most keys: they go first.
    tile = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    if tile < length:
        start = tl.load(chunk_ptr + chunk * 4 + 2)
        pages = table_ptr + tl.load(chunk_ptr + chunk * 4 + 3) * table_width
        m = tile + tl.arange(0, BLOCK_M)
        in_m = m < length
        h = tl.arange(0, H)
        at_row = ((first_row + m).to(tl.int64) * N + head)[:, None] * H + h[None, :]
        query = tl.load(query_ptr + at_row, mask=in_m[:, None], other=0.0)
        visible_from = tl.where(window > 0, tl.maximum(start + m - window + 1, 0), 0)
        visible_to = tl.where(in_m, start + m, -1)
        first = tl.where(window > 0, tl.maximum(start + tile - window + 1, 0), 0)
        stop = start + tl.minimum(tile + BLOCK_M, length)
        best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        summed = tl.zeros((BLOCK_M, H), tl.float32)
        kv_head = head // G
        for at in tl.range(first // BLOCK_S * BLOCK_S, stop, BLOCK_S, num_stages=STAGES):
            page = tl.load(pages + at // PAGE).to(tl.int64)
            page_start = ((page * (N // G) + kv_head) * PAGE + at % PAGE) * H
            best, total, summed = attend_block(
                query, keys_ptr, values_ptr, page_start, at, visible_from, visible_to,
                best, total, summed, scale, H, BLOCK_S, PRECISION,
            )  # fmt: skip
        out = summed / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(out_ptr + at_row, out.to(out_ptr.dtype.element_ty), mask=in_m[:, None])
