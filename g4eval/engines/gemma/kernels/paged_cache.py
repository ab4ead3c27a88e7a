"""Keys and values in pages that requests share.

A page holds some positions of every layer of one kind, sliding or full, that owns keys. `tables`
say where a slot's pages lie; a page is given back when nobody refers to it. A sliding layer's pages
are given back as the window leaves them, so a slot holds a ring of them however long it grows.
Page 0 belongs to nobody: rows that fill up a batch write there.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.config import GemmaConfig, LayerConfig

PAGE = 64  # positions; a power of two, no smaller than a block of keys that programs take
NOBODY = 0  # the page that may hold anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """How many pages there are of each kind, page 0 included."""

    sliding: int
    full: int


class PagedCache:
    """Pages for every slot; slot `slots` is one more, for rows that are nobody's.

    Args:
        config: the decoder.
        slots: requests in flight at most.
        tokens: the longest sequence.
        pages: how many there are.
        device: where they live.
        dtype: of keys and values.
        page: positions a page.
    """

    def __init__(
        self,
        config: GemmaConfig,
        *,
        slots: int,
        tokens: int,
        pages: Pages,
        device: torch.device,
        dtype: torch.dtype,
        page: int = PAGE,
    ) -> None:
        self.window = config.window
        self.slots = slots
        self.page = page
        width = -(-tokens // page)
        self._kinds = {True: _Kind(pages.sliding, slots), False: _Kind(pages.full, slots)}
        self.tables = {
            sliding: torch.zeros((slots + 1, width), dtype=torch.int32, device=device)
            for sliding in self._kinds
        }
        self._store = {
            layer.index: tuple(self._pages(layer, pages, device, dtype) for _ in range(2))
            for layer in config.owners
        }

    def layer(self, layer: LayerConfig) -> tuple[Tensor, Tensor]:
        """Return the keys and values that a layer reads, [pages, K, PAGE, H] each."""
        keys, values = self._store[layer.index if layer.kv_donor is None else layer.kv_donor]
        return keys, values

    def _pages(
        self, layer: LayerConfig, pages: Pages, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        count = pages.sliding if layer.sliding else pages.full
        shape = (count, layer.kv_heads, self.page, layer.head_dim)
        # Zeros: what nobody has written must at least be numbers.
        return torch.zeros(shape, device=device, dtype=dtype)

    def free_pages(self, *, sliding: bool) -> int:
        """Return how many pages of a kind nobody refers to."""
        return len(self._kinds[sliding].free)

    def reserve(self, slot: int, stop: int) -> None:
        """See that a slot has pages for every position before `stop`.

        Raises:
            MemoryError: there are none left; what was given stays.
        """
        for sliding, kind in self._kinds.items():
            own, needed = kind.owned[slot], -(-stop // self.page)
            first = len(own)
            while len(own) < needed:
                own.append(kind.take())
            if first < len(own):
                new = torch.tensor(own[first:], dtype=torch.int32)
                self.tables[sliding][slot, first : len(own)] = new.to(
                    self.tables[sliding].device, non_blocking=True
                )

    def leave_behind(self, slot: int, position: int) -> None:
        """Give back the sliding pages that a query at `position`, and later ones, can't see."""
        kind = self._kinds[True]
        own = kind.owned[slot]
        for page in range(kind.left[slot], max(0, position - self.window + 1) // self.page):
            kind.give_back(own[page])
            own[page] = NOBODY
            kind.left[slot] = page + 1

    def release(self, slot: int) -> None:
        """Give back everything a slot holds."""
        for kind in self._kinds.values():
            for page in kind.owned[slot]:
                kind.give_back(page)
            kind.owned[slot], kind.left[slot] = [], 0

    def share(self, source: int, target: int, length: int) -> int:
        """Let an empty slot begin with another's first `length` tokens, in whole pages.

        Returns:
            How many tokens it begins with; 0 where the window has left some of them behind.
        """
        whole = length // self.page
        kinds = self._kinds.values()
        if any(NOBODY in kind.owned[source][:whole] for kind in kinds):
            return 0
        for sliding, kind in self._kinds.items():
            for page in kind.owned[source][:whole]:
                kind.references[page] += 1
            kind.owned[target] = kind.owned[source][:whole]
            self.tables[sliding][target, :whole] = self.tables[sliding][source, :whole]
        return whole * self.page


class _Kind:
    """Who holds which page of one kind."""

    def __init__(self, pages: int, slots: int) -> None:
        self.free = deque(range(1, pages))
        self.references = [0] * pages
        self.owned: list[list[int]] = [[] for _ in range(slots)]
        self.left = [0] * slots  # pages the window has left behind

    def take(self) -> int:
        if not self.free:
            raise MemoryError("no page is left")
        page = self.free.popleft()
        self.references[page] = 1
        return page

    def give_back(self, page: int) -> None:
        if page != NOBODY:
            self.references[page] -= 1
            if not self.references[page]:
                self.free.append(page)


def page_bytes(config: GemmaConfig, itemsize: int, *, sliding: bool) -> int:
    """Return what a page of PAGE positions takes over all layers of its kind."""
    layers = (layer for layer in config.owners if layer.sliding == sliding)
    return sum(2 * layer.kv_heads * layer.head_dim * PAGE * itemsize for layer in layers)
