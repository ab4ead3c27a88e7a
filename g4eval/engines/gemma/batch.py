"""What one forward pass computes: decode rows of many requests, then chunks of prompts.

Rows of all requests lie flat behind each other; only attention needs to know whose they are. A
request's own length alone decides the shapes its attention runs in, never its neighbours': that is
half of the promise that neighbours don't change its tokens (the other half: `linear.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

SHORT_STEP = 32
SPAN_STEP = 512  # the key block of PyTorch's fused CPU attention; longer spans are multiples of it


def span_of(tokens: int) -> int:
    """Return how many keys attention reads for a sequence of this length: a few fixed sizes."""
    step = SPAN_STEP if tokens > SPAN_STEP else SHORT_STEP
    return max(1, -(-tokens // step)) * step


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive prompt tokens of one request."""

    slot: int
    start: int  # position of the first token
    row: int  # its row in the batch
    length: int

    @property
    def stop(self) -> int:
        """Position after the last token."""
        return self.start + self.length

    @property
    def rows(self) -> slice:
        """The rows of the batch that this chunk fills."""
        return slice(self.row, self.row + self.length)


@dataclass(frozen=True, slots=True)
class Run:
    """Decode rows of neighbouring slots whose attention has one shape."""

    slot: int  # the first one's
    row: int  # of the first one in the batch
    count: int
    span: int  # keys read on full layers; a sliding layer reads no more than its window

    @property
    def slots(self) -> slice:
        """The slots of the cache it reads."""
        return slice(self.slot, self.slot + self.count)

    @property
    def rows(self) -> slice:
        """The rows of the batch that it fills."""
        return slice(self.row, self.row + self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of one forward pass."""

    token_ids: Tensor  # [R]
    positions: Tensor  # [R]
    decode_slots: Tensor  # [n]: the first n rows are one new token each of these slots
    runs: tuple[Run, ...]
    chunks: tuple[Chunk, ...]

    @property
    def decode_positions(self) -> Tensor:
        """Positions [n] of the decode rows."""
        return self.positions[: len(self.decode_slots)]

    def ends(self) -> tuple[Tensor, "Batch"]:
        """Return the rows that a next token may be drawn from, and the batch of those alone.

        They are the decode rows, then the last row of each chunk.
        """
        decoded = len(self.decode_slots)
        last = [chunk.rows.stop - 1 for chunk in self.chunks]
        rows = torch.tensor([*range(decoded), *last], device=self.positions.device)
        return rows, Batch(
            token_ids=self.token_ids[rows],
            positions=self.positions[rows],
            decode_slots=self.decode_slots,
            runs=self.runs,
            chunks=tuple(
                Chunk(chunk.slot, chunk.stop - 1, decoded + i, 1)
                for i, chunk in enumerate(self.chunks)
            ),
        )


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One token to decode: it stands at `position` and its request lives in `slot`."""

    slot: int
    position: int
    token_id: int


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Tokens of a prompt to compute, the first of them at `start`."""

    slot: int
    start: int
    token_ids: Sequence[int]


def make_batch(
    decode: Sequence[DecodeRow], prompts: Sequence[PromptPart], device: torch.device
) -> Batch:
    """Lay rows out flat: decode rows in slot order, then the prompt parts as given."""
    decode = sorted(decode, key=lambda row: row.slot)
    token_ids = [row.token_id for row in decode]
    positions = [row.position for row in decode]
    chunks = []
    for part in prompts:
        chunks.append(Chunk(part.slot, part.start, len(token_ids), len(part.token_ids)))
        token_ids.extend(part.token_ids)
        positions.extend(range(part.start, part.start + len(part.token_ids)))
    return Batch(
        token_ids=torch.tensor(token_ids, device=device),
        positions=torch.tensor(positions, device=device),
        decode_slots=torch.tensor([row.slot for row in decode], dtype=torch.long, device=device),
        runs=_runs(decode),
        chunks=tuple(chunks),
    )


def _runs(decode: Sequence[DecodeRow]) -> tuple[Run, ...]:
    spans = [span_of(row.position + 1) for row in decode]
    cuts = [
        i
        for i in range(1, len(decode))
        if decode[i].slot != decode[i - 1].slot + 1 or spans[i] != spans[i - 1]
    ]
    edges = [0, *cuts, len(decode)] if decode else []
    return tuple(Run(decode[a].slot, a, b - a, spans[a]) for a, b in pairwise(edges))
