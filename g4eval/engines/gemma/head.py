"""The output head: hidden rows to logits, or straight to the most likely tokens.

Reading the head takes half of a small model's decode step. Where the processor multiplies bfloat16
faster than float32, `Screen` multiplies a rounded copy first and keeps every token that could be
among the most likely, given how far rounding can have moved its logit at most. Only those few get
a float32 logit. What comes out is what the whole float32 head would give: a bound proves it, and
rows that the bound can't narrow down go through the whole head.
"""

import math

import torch
from torch import Tensor

from g4eval.engines.gemma.linear import PackedLinear, can_pack, make_linear

BLOCK = 256  # columns a block in searches for the largest
MOST_CANDIDATES = 4096  # a row; for more, the whole head is faster
PAIRS_AT_ONCE = 1024  # candidates whose weights are gathered together


class Head:
    """Logits of hidden rows [R, D] over a vocabulary of V.

    Args:
        weight: [V, D], in the checkpoint's dtype.
        dtype: of the hidden rows.
        softcap: logits are `softcap * tanh(logits / softcap)`; None: as they are.
        screened: whether `top` may look for candidates in bfloat16 first.
    """

    def __init__(
        self, weight: Tensor, dtype: torch.dtype, softcap: float | None, *, screened: bool
    ) -> None:
        self.product = make_linear([weight.to(dtype)])  # [V, D]
        self._softcap = softcap
        self._screen = Screen(weight) if screened else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [R, V] in float32."""
        return _soft_cap(self.product(hidden), self._softcap).float()

    def top(self, hidden: Tensor, count: int, banned: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and ids of the most likely tokens, most likely first.

        By way of the screen where it may, else of the whole head.

        Args:
            hidden: [R, D].
            count: C, how many; 0: all.
            banned: ids of tokens that are never among them.

        Returns:
            [R, C] each, C no more than V; logits in float32.
        """
        if self._screen is None or not self.screens(count):
            return self._top_of_all(hidden, count, banned)
        values, ids, settled = self._screen.top(hidden, count, banned)
        values = _soft_cap(values, self._softcap)
        rest = (~settled).nonzero()[:, 0]
        if len(rest):
            values[rest], ids[rest] = self._top_of_all(hidden[rest], count, banned)
        return values, ids

    def screens(self, count: int) -> bool:
        """Whether `top` can do without the whole head for so many tokens, for most rows."""
        return self._screen is not None and self._screen.is_worth(count)

    def _top_of_all(self, hidden: Tensor, count: int, banned: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(hidden)
        logits[:, banned] = -math.inf
        return top_of(logits, count)


class Screen:
    """Finds the tokens whose logits may be the largest by a product in bfloat16.

    For a hidden row h and a token's weight w, both rounded to h' and w', the product of the rounded
    ones is off by no more than |h - h'| |w'| + |h| |w - w'| and what its sums round (all norms
    Euclidean): Cauchy and Schwarz. With this error at most e, and C tokens whose float32 logits are
    a or more, no token with a rough logit below a - e is among the C most likely.

    Args:
        weight: [V, D] on CPU.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._block = math.gcd(len(weight), BLOCK)
        largest, moved = 0.0, 0.0
        for rows in torch.split(weight, 8192):
            largest = max(largest, float(rows.float().norm(dim=1).amax()))
            moved = max(moved, float((rows.float() - rows.bfloat16().float()).norm(dim=1).amax()))
        self._largest = largest  # norm of a token's weight
        self._moved = moved  # norm of what rounding changes in it
        self._rounded = PackedLinear(weight.bfloat16())

    def is_worth(self, count: int) -> bool:
        """Whether so few tokens are asked for that they lie in few blocks."""
        return 0 < count <= len(self._weight) // self._block // 4

    def top(self, hidden: Tensor, count: int, banned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest logits in float32, their ids, and which rows they hold for.

        Args:
            hidden: [R, D] float32.
            count: C; `is_worth` it.
            banned: ids left out.

        Returns:
            Logits and ids [R, C], largest first, and [R] bool: False where candidates were too many
            to be worth it, or no numbers (a hidden row with NaN); such a row's values mean nothing.
        """
        rough = self._rounded(hidden.bfloat16())
        rough[:, banned] = -math.inf
        rows, ids = self._candidates(rough, hidden, count)
        found = torch.bincount(rows, minlength=len(hidden))
        logits = torch.full((len(hidden), max(count, int(found.max()))), -math.inf)
        tokens = torch.zeros(logits.shape, dtype=torch.long)
        place = torch.arange(len(rows)) - (found.cumsum(0) - found)[rows]
        logits[rows, place] = self._logits(hidden, rows, ids)
        tokens[rows, place] = ids
        ordered = logits.sort(dim=1, descending=True, stable=True)  # of equals the first id first
        ids = tokens.gather(1, ordered.indices[:, :count])
        return ordered.values[:, :count], ids, found >= count

    def _candidates(self, rough: Tensor, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return rows and ids [n], row by row, of all that may be among a row's `count` best."""
        grid = rough.view(len(rough), -1, self._block)
        best = grid.amax(dim=2)
        _, likely = _top_of_blocks(grid, best, count)
        rows = torch.arange(len(rough)).repeat_interleave(count)
        reached = self._logits(hidden, rows, likely.flatten()).view(-1, count).amin(dim=1)
        # Rounding keeps the order, so what lies above the floor is not below its rounded value.
        floor = (reached - self._error(hidden)).bfloat16()[:, None]
        rows, blocks = (best >= floor).nonzero(as_tuple=True)
        hits = grid[rows, blocks] >= floor[rows]
        found = torch.zeros(len(rough), dtype=torch.long).index_add_(0, rows, hits.sum(dim=1))
        hits &= (found <= MOST_CANDIDATES)[rows, None]
        at, places = hits.nonzero(as_tuple=True)
        return rows[at], blocks[at] * self._block + places

    def _error(self, hidden: Tensor) -> Tensor:
        """Return [R], how far a final logit and a rough one, not rounded itself, can differ."""
        size = hidden.norm(dim=1)
        moved = (hidden - hidden.bfloat16().float()).norm(dim=1)
        # Two sums of D terms in float32, in any order; twice what rounding to nearest can do.
        summed = 4 * hidden.shape[1] * 2.0**-24 * size * self._largest
        return moved * (self._largest + self._moved) + size * self._moved + summed

    def _logits(self, hidden: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """Return [n], the product of each row with each token's weight, one like the other."""
        pairs = zip(torch.split(rows, PAIRS_AT_ONCE), torch.split(ids, PAIRS_AT_ONCE), strict=True)
        return torch.cat([(self._weight[i].float().mul_(hidden[r])).sum(dim=1) for r, i in pairs])


def top_of(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values and ids [R, count] of the largest logits, largest first; count 0: all sorted.

    Exact, and several times faster than searching 262,144 columns.
    """
    width = logits.shape[1]
    if count == 0:
        ordered = torch.sort(logits, dim=1, descending=True, stable=True)
        return ordered.values, ordered.indices
    count = min(count, width)
    blocks = width // BLOCK
    if width % BLOCK or blocks <= count:
        found = torch.topk(logits, count, dim=1)
        return found.values, found.indices
    grid = logits.view(-1, blocks, BLOCK)
    return _top_of_blocks(grid, grid.amax(dim=2), count)


def _top_of_blocks(grid: Tensor, best: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values and ids [R, count] of the largest of `grid` [R, B, W], largest first.

    The largest `count` values lie in the `count` blocks with the largest maxima, `best` [R, B], so
    only those are searched.
    """
    width = grid.shape[2]
    blocks = best.topk(count, dim=1).indices
    rows = torch.arange(len(grid), device=grid.device)[:, None]
    values, places = grid[rows, blocks].flatten(1).topk(count, dim=1)
    return values, blocks.gather(1, places // width) * width + places % width


def is_screened(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a model's head should look for candidates in bfloat16 first."""
    fast = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    exact = device.type == "cpu" and dtype is torch.float32 and can_pack()
    return exact and any(getattr(torch.cpu, name, bool)() for name in fast)


def _soft_cap(logits: Tensor, cap: float | None) -> Tensor:
    return logits if cap is None else torch.tanh(logits / cap) * cap
