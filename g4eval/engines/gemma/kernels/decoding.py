"""Decode steps as CUDA graphs: what a step needs lies on the card, what it gives stays there.

A slot's last token, position and place in its stream live in tensors of `Slots`; a step takes its
rows from there and puts the next token back. So steps can follow each other without the host, which
reads the tokens as they come. A graph is made for a few numbers of rows and lengths; rows that fill
a graph up belong to nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from g4eval.engines.gemma.batch import Batch, PromptPart, Run, make_batch
from g4eval.engines.gemma.kernels.base import Draws
from g4eval.engines.gemma.kernels.cuda import CudaKernels
from g4eval.engines.gemma.kernels.forward import hidden
from g4eval.engines.gemma.kernels.paged_cache import PagedCache
from g4eval.engines.gemma.kernels.sampling import stream
from g4eval.engines.gemma.model import Gemma

AHEAD = 1024  # numbers of a stream kept on the card
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SHORTEST = 1024  # tokens; a graph's longest sequence is this or a doubling of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How a request's tokens are drawn."""

    temperature: float = 1.0
    top_k: int = 64
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int = 0


class Slots:
    """What decoding remembers of each slot, on the card; the last slot is nobody's.

    Args:
        slots: how many.
        device: where.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        count = slots + 1

        def numbers(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.token = numbers(count, dtype=torch.int64)
        self.position = numbers(count, dtype=torch.int64)
        self.drawn = numbers(count, dtype=torch.int64)
        self.step = numbers(count, dtype=torch.int64) + 1
        self.step[-1] = 0
        self.stream = numbers(count, AHEAD, dtype=torch.float64)
        self.temperature = numbers(count, dtype=torch.float64)
        self.top_k = numbers(count, dtype=torch.int32) + 1
        self.top_p = numbers(count, dtype=torch.float64) + 1
        self.min_p = numbers(count, dtype=torch.float64)

    def begin(self, slot: int, position: int, drawing: Drawing) -> None:
        """Start a request: `position` is where its first token that is drawn will stand."""
        self.position[slot] = position - 1  # of the prompt's last token, whose successor is drawn
        self.drawn[slot] = 0
        self.stream[slot] = stream(drawing.seed, 0, AHEAD).to(self.stream.device)
        self.temperature[slot] = drawing.temperature
        self.top_k[slot] = drawing.top_k
        self.top_p[slot] = drawing.top_p
        self.min_p[slot] = drawing.min_p

    def refill(self, slot: int, drawing: Drawing, start: int) -> None:
        """Put numbers start to start + AHEAD of the stream there, which `drawn` has reached."""
        self.stream[slot] = stream(drawing.seed, start, AHEAD).to(self.stream.device)

    def draws(self, slots: Tensor) -> Draws:
        """Return how the next token of these slots [R] is drawn."""
        return Draws(
            temperature=self.temperature[slots],
            top_k=self.top_k[slots],
            top_p=self.top_p[slots],
            min_p=self.min_p[slots],
            uniform=self.stream[slots, self.drawn[slots] % AHEAD],
        )

    def put(self, slots: Tensor, tokens: Tensor) -> None:
        """Take the tokens [R] that were drawn for these slots [R]."""
        step = self.step[slots]  # 0 for nobody's rows, which must not grow
        self.token[slots] = tokens
        self.position.index_add_(0, slots, step)
        self.drawn.index_add_(0, slots, step)


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    slots: Tensor  # [R], read by the graph
    tokens: Tensor  # [R], written by it


class Decoder:
    """A model, its cache and its graphs.

    Args:
        model: with parts for these kernels.
        kernels: the kernels.
        cache: whose pages are reserved by the caller before a step.
        graphs: whether to record steps; without, each is launched by itself.
    """

    def __init__(
        self, model: Gemma, kernels: CudaKernels, cache: PagedCache, *, graphs: bool = True
    ) -> None:
        self.model = model
        self.cache = cache
        self.slots = Slots(cache.slots, model.device)
        self._kernels = kernels
        self._records = graphs
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool: Any = None  # memory that all graphs share

    @torch.inference_mode()
    def prefill(self, parts: Sequence[PromptPart], ends: Sequence[int]) -> Tensor:
        """Compute prompt tokens; draw the first token of the prompts that end here.

        Args:
            parts: of prompts, whose pages are reserved; `Slots.begin` was called for the slots.
            ends: places in `parts` of those that end their prompt.

        Returns:
            The tokens drawn, one for each of `ends`.
        """
        device = self.model.device
        batch = make_batch([], parts, device)
        rows = hidden(self.model, self._kernels, batch, self.cache, ends_only=True)
        if not ends:
            return torch.empty(0, dtype=torch.long, device=device)
        slots = torch.tensor([parts[i].slot for i in ends], dtype=torch.long, device=device)
        rows = rows[torch.tensor(list(ends), dtype=torch.long, device=device)]
        return self._draw(rows, slots)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], longest: int) -> Tensor:
        """Decode a token of each of these slots; return the tokens, on the card.

        Args:
            slots: whose; their pages are reserved.
            longest: tokens in the longest of their sequences, or any larger number.
        """
        rows = next((n for n in ROWS if n >= len(slots)), len(slots))
        length = SHORTEST
        while length < longest:
            length *= 2
        key = (rows, length)
        padded = [*slots, *[self.cache.slots] * (rows - len(slots))]
        wanted = torch.tensor(padded, dtype=torch.long)
        if not self._records:
            return self._step(wanted.to(self.model.device), length)[: len(slots)]
        if key not in self._graphs:
            self._graphs[key] = self._record(rows, length)
        made = self._graphs[key]
        made.slots.copy_(wanted, non_blocking=True)
        made.graph.replay()
        return made.tokens[: len(slots)]

    def _record(self, rows: int, length: int) -> _Graph:
        """Run a step for nobody, so that every program is there, then record one."""
        slots = torch.full((rows,), self.cache.slots, dtype=torch.long, device=self.model.device)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            self._step(slots, length)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            tokens = self._step(slots, length)
        self._pool = graph.pool()
        return _Graph(graph, slots, tokens)

    def _step(self, slots: Tensor, length: int) -> Tensor:
        rows = len(slots)
        batch = Batch(
            token_ids=self.slots.token[slots],
            positions=self.slots.position[slots],
            decode_slots=slots,
            runs=(Run(0, 0, rows, length),),
            chunks=(),
        )
        return self._draw(hidden(self.model, self._kernels, batch, self.cache), slots)

    def _draw(self, rows: Tensor, slots: Tensor) -> Tensor:
        """Draw from hidden rows [R, D] for these slots [R], and remember what was drawn."""
        logits = self.model.head(rows)
        tokens = self._kernels.sample(logits, self.slots.draws(slots))
        self.slots.put(slots, tokens)
        return tokens
