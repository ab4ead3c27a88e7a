"""Keys and values of prompt beginnings, kept so that equal beginnings are computed once.

A prompt is cut into chunks at fixed places, so equal beginnings give equal chunks. Each computed
chunk is kept under what came before it and its own tokens: a tree without hashes to collide. A
chunk copied from here is bit for bit what the request would have computed alone.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from g4eval.engines.gemma.cache import Piece

ROOT = 0  # the empty beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChunk:
    """One computed chunk."""

    node: int  # names this beginning, up to the chunk's end
    piece: Piece
    last_hidden: Tensor  # [D], of the chunk's last token: a prompt may end there

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return self.piece.nbytes + self.last_hidden.nbytes


class PrefixStore:
    """Computed chunks up to a budget; the least recently used go first.

    Args:
        budget_bytes: 0 keeps nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._used = 0
        self._next_node = ROOT + 1
        self._chunks: OrderedDict[tuple[int, tuple[int, ...]], KnownChunk] = OrderedDict()

    def find(self, node: int, token_ids: Sequence[int]) -> KnownChunk | None:
        """Return the chunk with these tokens behind the beginning `node`."""
        key = (node, tuple(token_ids))
        known = self._chunks.get(key)
        if known is not None:
            self._chunks.move_to_end(key)
        return known

    def add(self, node: int, token_ids: Sequence[int], piece: Piece, last: Tensor) -> int:
        """Keep a chunk that has just been computed behind `node`; return the node of its end."""
        key = (node, tuple(token_ids))
        known = KnownChunk(node=self._next_node, piece=piece, last_hidden=last.clone())
        self._next_node += 1
        if known.nbytes <= self._budget:
            self._chunks[key] = known
            self._used += known.nbytes
        while self._used > self._budget:
            _, dropped = self._chunks.popitem(last=False)
            self._used -= dropped.nbytes
        return known.node
