"""Keys and values of every request in flight, in slots.

A full-attention layer keeps every position: [slots, K, capacity, H], the capacity doubling as
sequences grow, and so does a sliding layer up to its window W. From there on it is a ring: position
p lies at p mod W, so after writing p it holds exactly what a query at p may see. Layers that read a
donor's keys and values have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.batch import Batch, Chunk, Run, span_of
from g4eval.engines.gemma.config import GemmaConfig, LayerConfig


@dataclass(frozen=True, slots=True)
class KeyValue:
    """Keys and values side by side; [..., K, S, H] each."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The keys and values of one stretch of a prompt, kept to be copied into other slots."""

    start: int
    length: int
    layers: Mapping[int, KeyValue]  # [K, S, H]; on sliding layers the last min(length, W) only

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return sum(kv.keys.nbytes + kv.values.nbytes for kv in self.layers.values())


class KVCache:
    """Slots for keys and values; a slot belongs to one request at a time.

    Args:
        config: the decoder.
        slots: how many requests there is room for; `rebuild` changes it.
        device: where the tensors live.
        dtype: of keys and values.
        tokens: the longest sequence there is room for; `rebuild` changes it.
    """

    def __init__(
        self,
        config: GemmaConfig,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
        tokens: int = 1,
    ) -> None:
        self.window = config.window
        self.slots = slots
        self.capacity = span_of(tokens)
        self._owners: dict[int, LayerConfig] = {layer.index: layer for layer in config.owners}
        self._device = device
        self._dtype = dtype
        self._store = {index: self._empty(layer) for index, layer in self._owners.items()}

    def _empty(self, layer: LayerConfig) -> KeyValue:
        # Zeros, not empty: a masked key's weight is 0, and 0 times garbage may be NaN.
        places = min(self.window, self.capacity) if layer.sliding else self.capacity
        shape = (self.slots, layer.kv_heads, places, layer.head_dim)
        return KeyValue(
            torch.zeros(shape, device=self._device, dtype=self._dtype),
            torch.zeros(shape, device=self._device, dtype=self._dtype),
        )

    def rebuild(self, kept: Sequence[int], slots: int, tokens: int) -> None:
        """Change the number of slots and the room a sequence has, one layer after another.

        Args:
            kept: old slots whose contents move to slots 0, 1, ... in this order.
            slots: the new number, no fewer than are kept.
            tokens: the new longest sequence, no shorter than any kept.
        """
        self.slots, self.capacity = slots, span_of(tokens)
        for index, layer in self._owners.items():
            old, new = self._store[index], self._empty(layer)
            places = min(old.keys.shape[2], new.keys.shape[2])
            for place, slot in enumerate(kept):
                new.keys[place, :, :places] = old.keys[slot, :, :places]
                new.values[place, :, :places] = old.values[slot, :, :places]
            self._store[index] = new

    def write_decoded(self, layer: int, batch: Batch, new: KeyValue) -> None:
        """Store the decode rows' keys and values, [n, K, H] each."""
        places = batch.decode_positions
        if self._owners[layer].sliding:
            places = places % self.window
        stored = self._store[layer]
        stored.keys[batch.decode_slots, :, places] = new.keys
        stored.values[batch.decode_slots, :, places] = new.values

    def read_run(self, layer: int, run: Run) -> KeyValue:
        """Return what a run of decode rows attends over, [n, K, S, H].

        Places past a row's own position are to be masked.
        """
        stored = self._store[layer]
        span = min(run.span, stored.keys.shape[2])
        return KeyValue(stored.keys[run.slots, :, :span], stored.values[run.slots, :, :span])

    def extend(self, layer: int, chunk: Chunk, new: KeyValue) -> KeyValue:
        """Store a chunk's keys and values, [K, T, H] each; return all that it attends over.

        Returns:
            [K, S, H], the positions up to the chunk's end: from 0 on full layers, from
            `first_visible` on sliding ones.
        """
        stored = self._store[layer]
        if not self._owners[layer].sliding:
            stored.keys[chunk.slot, :, chunk.start : chunk.stop] = new.keys
            stored.values[chunk.slot, :, chunk.start : chunk.stop] = new.values
            return KeyValue(
                stored.keys[chunk.slot, :, : chunk.stop],
                stored.values[chunk.slot, :, : chunk.stop],
            )
        if chunk.start == 0:
            self._write_ring(layer, chunk.slot, chunk.stop, new)
            return new
        first = first_visible(chunk, self.window)
        past = self._ring(layer, chunk.slot, range(first, chunk.start))
        self._write_ring(layer, chunk.slot, chunk.stop, new)
        return KeyValue(
            torch.cat((past.keys, new.keys), dim=1), torch.cat((past.values, new.values), dim=1)
        )

    def _ring(self, layer: int, slot: int, positions: Sequence[int]) -> KeyValue:
        places = torch.tensor(positions, dtype=torch.long, device=self._device) % self.window
        stored = self._store[layer]
        return KeyValue(stored.keys[slot][:, places], stored.values[slot][:, places])

    def _write_ring(self, layer: int, slot: int, stop: int, new: KeyValue) -> None:
        kept = min(new.keys.shape[1], self.window)
        places = torch.arange(stop - kept, stop, device=self._device) % self.window
        stored = self._store[layer]
        stored.keys[slot, :, places] = new.keys[:, -kept:]
        stored.values[slot, :, places] = new.values[:, -kept:]

    def copy_out(self, slot: int, start: int, stop: int) -> Piece:
        """Return a copy of what a slot holds for positions start..stop, the last ones it wrote."""
        layers = {}
        for index, layer in self._owners.items():
            if layer.sliding:
                positions = range(max(start, stop - self.window), stop)
                layers[index] = self._ring(index, slot, positions)
            else:
                stored = self._store[index]
                layers[index] = KeyValue(
                    stored.keys[slot, :, start:stop].clone(),
                    stored.values[slot, :, start:stop].clone(),
                )
        return Piece(start=start, length=stop - start, layers=layers)

    def copy_in(self, slot: int, piece: Piece) -> None:
        """Put a piece into a slot, as if the slot had computed it."""
        stop = piece.start + piece.length
        for index, layer in self._owners.items():
            kept = piece.layers[index]
            if layer.sliding:
                self._write_ring(index, slot, stop, kept)
            else:
                self._store[index].keys[slot, :, piece.start : stop] = kept.keys
                self._store[index].values[slot, :, piece.start : stop] = kept.values


def first_visible(chunk: Chunk, window: int) -> int:
    """Return the first position that the first query of a chunk sees on a sliding layer."""
    return max(0, chunk.start - window + 1)


def bytes_per_token(config: GemmaConfig, itemsize: int) -> int:
    """Return what one more token of one request costs on the full layers."""
    full = (layer for layer in config.owners if not layer.sliding)
    return sum(2 * layer.kv_heads * layer.head_dim * itemsize for layer in full)


def bytes_per_slot(config: GemmaConfig, itemsize: int) -> int:
    """Return what the rings of one slot cost, however short its request."""
    rings = (layer for layer in config.owners if layer.sliding)
    return sum(2 * layer.kv_heads * layer.head_dim * config.window * itemsize for layer in rings)
