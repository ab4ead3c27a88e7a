"""Continuous batching: requests join and leave between steps, each step one forward pass.

A step computes prompt chunks up to a row budget; where no prompt is left waiting, it also decodes a
token of every request. Prompts first, since a step reads all weights: the fuller it is, the fewer
it takes. A chunk that another request of the step computes is waited for, then copied. Chunks are
cut at multiples of `CHUNK_TOKENS` from the prompt's start, so what is computed for a request never
depends on its neighbours.

A request is admitted only if its longest possible sequence fits beside those of the others, so an
admitted request always runs to its end: nothing is preempted and computed twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from g4eval.engines.gemma.batch import DecodeRow, PromptPart, make_batch, span_of
from g4eval.engines.gemma.cache import KVCache
from g4eval.engines.gemma.model import Gemma
from g4eval.engines.gemma.prefixes import ROOT, PrefixStore
from g4eval.engines.gemma.sampling import Sampler, choose

CHUNK_TOKENS = 256
PROMPT_ROWS_A_STEP = 512  # more gain nothing: activations outgrow the caches


@dataclass(slots=True, kw_only=True)
class Generation:
    """One request on its way: its prompt, what it has said, and where its keys live."""

    prompt_ids: Sequence[int]
    sampler: Sampler
    max_new_tokens: int
    ends: Callable[[Sequence[int]], bool]  # of the ids generated so far: whether to stop
    slot: int = -1
    computed: int = 0  # prompt tokens whose keys are in the cache
    node: int = ROOT  # of the prefix store, for the tokens computed
    last_hidden: Tensor | None = None  # [D]; set when the prompt is computed, until the first token
    stopped: bool = False  # by a stop id or text; else by length

    @property
    def generated(self) -> list[int]:
        """The tokens generated so far."""
        return self.sampler.generated

    @property
    def longest(self) -> int:
        """Tokens of its longest possible sequence."""
        return len(self.prompt_ids) + self.max_new_tokens

    @property
    def next_chunk(self) -> Sequence[int]:
        """The prompt tokens to compute next; empty when all are."""
        return self.prompt_ids[self.computed : self.computed + CHUNK_TOKENS]

    @property
    def is_last_chunk(self) -> bool:
        """Whether the next chunk is the prompt's last."""
        return self.computed + len(self.next_chunk) == len(self.prompt_ids)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to generate."""
        return self.stopped or len(self.generated) >= self.max_new_tokens

    @property
    def length(self) -> int:
        """Tokens whose keys the cache holds after the next step, at most."""
        return min(self.computed + CHUNK_TOKENS, len(self.prompt_ids)) + len(self.generated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the memory plan allows."""

    slots: int
    cached_tokens: int  # requests in flight times the longest sequence may not be more
    prefix_bytes: int


@dataclass(slots=True)
class Scheduler:
    """Runs generations together; not thread-safe: one caller, one thread.

    Args:
        model: the decoder.
        capacity: slots and tokens that fit.
        suppressed_ids: tokens never drawn.
    """

    model: Gemma
    capacity: Capacity
    suppressed_ids: Sequence[int] = ()
    _cache: KVCache = field(init=False)
    _prefixes: PrefixStore = field(init=False)
    _banned: Tensor = field(init=False)  # suppressed_ids
    _active: dict[int, Generation] = field(init=False, default_factory=dict)  # by slot

    def __post_init__(self) -> None:
        model = self.model
        self._cache = KVCache(model.config, self.capacity.slots, model.device, model.dtype)
        self._prefixes = PrefixStore(self.capacity.prefix_bytes)
        self._banned = torch.tensor(self.suppressed_ids, dtype=torch.long, device=model.device)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._active

    @property
    def has_slot(self) -> bool:
        """Whether one more may be in flight, if it fits the memory."""
        return len(self._active) < self.capacity.slots

    def fits_alone(self, generation: Generation) -> bool:
        """Whether the generation could run with nothing beside it."""
        return span_of(generation.longest) <= self.capacity.cached_tokens

    def admit(self, generation: Generation) -> bool:
        """Give a generation a slot; False where it must wait for others to end."""
        if not self.has_slot:
            return False
        together = [*self._active.values(), generation]
        longest = max(span_of(g.longest) for g in together)
        if len(together) > 1 and len(together) * longest > self.capacity.cached_tokens:
            return False
        free = (slot for slot in range(self._cache.slots) if slot not in self._active)
        slot = next(free, None)
        if slot is None:
            self._rebuild(span_of(max(g.length for g in together)))
            slot = len(self._active)
        generation.slot = slot
        self._active[slot] = generation
        return True

    def _rebuild(self, tokens: int) -> None:
        """Give the cache room for this length in as many slots as the plan then allows."""
        slots = min(self.capacity.slots, max(1, self.capacity.cached_tokens // span_of(tokens)))
        active = list(self._active.values())
        self._cache.rebuild([g.slot for g in active], slots, tokens)
        for slot, generation in enumerate(active):
            generation.slot = slot
        self._active = dict(enumerate(active))

    def _make_room(self) -> None:
        """Grow the cache where a sequence outgrows it, doubling up to the longest possible."""
        needed = max((g.length for g in self._active.values()), default=0)
        if needed > self._cache.capacity:
            longest = max(g.longest for g in self._active.values())
            self._rebuild(max(needed, min(2 * self._cache.capacity, longest)))

    def abort(self) -> None:
        """Drop everything in flight."""
        self._active.clear()

    def drop(self, generation: Generation) -> None:
        """Give up a generation; one that isn't in flight (any more) changes nothing."""
        if self._active.get(generation.slot) is generation:
            del self._active[generation.slot]

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """Run one forward pass; return the generations that it ended."""
        self._copy_known_chunks()
        self._make_room()
        waiting = [g for g in self._active.values() if g.next_chunk]
        prompts = self._pick_chunks(waiting)
        if sum(g.is_last_chunk for g in prompts) < len(waiting):
            self._forward([], prompts)
            return []
        decoding = [g for g in self._active.values() if not g.next_chunk and g.generated]
        rows = self._forward(decoding, prompts)
        starting = [g for g in self._active.values() if g.last_hidden is not None]
        if decoding or starting:
            firsts = [g.last_hidden for g in starting if g.last_hidden is not None]
            self._draw(decoding + starting, torch.stack([*rows, *firsts]))
        done = [g for g in self._active.values() if g.is_done and g.generated]
        for generation in done:
            del self._active[generation.slot]
        return done

    def _copy_known_chunks(self) -> None:
        """Bring every prompt as far as chunks computed earlier carry it."""
        for generation in list(self._active.values()):
            while chunk := generation.next_chunk:
                known = self._prefixes.find(generation.node, chunk)
                if known is None:
                    break
                generation.computed += len(chunk)
                self._make_room()
                self._cache.copy_in(generation.slot, known.piece)
                generation.node = known.node
                if not generation.next_chunk:
                    generation.last_hidden = known.last_hidden

    def _pick_chunks(self, waiting: Sequence[Generation]) -> list[Generation]:
        """Choose whose next chunk to compute: up to the row budget, equal chunks once."""
        picked: list[Generation] = []
        seen: set[tuple[int, tuple[int, ...]]] = set()
        rows = 0
        for generation in waiting:
            key = (generation.node, tuple(generation.next_chunk))
            if key in seen:
                continue
            if picked and rows + len(generation.next_chunk) > PROMPT_ROWS_A_STEP:
                break
            seen.add(key)
            picked.append(generation)
            rows += len(generation.next_chunk)
        return picked

    def _forward(
        self, decoding: list[Generation], prompts: Sequence[Generation]
    ) -> Sequence[Tensor]:
        """Compute one token of the decoding (sorts them by slot) and the prompts' next chunks.

        Returns:
            A hidden row [D] a decoding generation.
        """
        if not decoding and not prompts:
            return ()
        decoding.sort(key=lambda g: g.slot)
        decode = [
            DecodeRow(g.slot, len(g.prompt_ids) + len(g.generated) - 1, g.generated[-1])
            for g in decoding
        ]
        parts = [PromptPart(g.slot, g.computed, g.next_chunk) for g in prompts]
        batch = make_batch(decode, parts, self.model.device)
        rows = self.model.hidden(batch, self._cache, ends_only=True)
        for generation, last in zip(prompts, rows[len(decoding) :], strict=True):
            self._finish_chunk(generation, last)
        return rows[: len(decoding)].unbind()

    def _finish_chunk(self, generation: Generation, last: Tensor) -> None:
        """Count a chunk as computed and keep it for others; `last` [D] is its last hidden row."""
        chunk, start = generation.next_chunk, generation.computed
        generation.computed += len(chunk)
        piece = self._cache.copy_out(generation.slot, start, generation.computed)
        generation.node = self._prefixes.add(generation.node, chunk, piece, last)
        if not generation.next_chunk:
            generation.last_hidden = last

    def _draw(self, generations: Sequence[Generation], hidden: Tensor) -> None:
        choose(self.model.head, hidden, [g.sampler for g in generations], self._banned)
        for generation in generations:
            generation.last_hidden = None
            generation.stopped = generation.ends(generation.generated)
