"""Logits to the next token: penalties, temperature, top-k, top-p, min-p; one generator a request.

Every row is treated alone and in one order, and a request draws one uniform number a token from
its own generator, so its tokens depend on its seed and its logits only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from g4eval.config import SamplingParams
from g4eval.engines.gemma.head import Head, top_of


@dataclass(slots=True)
class Sampler:
    """Draws the tokens of one request.

    Args:
        params: how.
        seed: of the request's generator.
        prompt_ids: what the repetition penalty counts beside the generated tokens.
    """

    params: SamplingParams
    seed: int
    prompt_ids: Sequence[int]
    generated: list[int] = field(default_factory=list)
    _generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return self.params.repetition_penalty != 1.0 or self.params.presence_penalty != 0.0

    @property
    def candidates(self) -> int:
        """How many of the most likely tokens it needs; 0: all."""
        return 1 if self.params.temperature == 0 else self.params.top_k

    def penalise(self, logits: Tensor) -> None:
        """Change a row of logits [V] in place for what was said before.

        Repetition divides positive logits and multiplies negative ones, over prompt and generated
        tokens; presence subtracts, over generated tokens only (as vLLM and the OpenAI API do).
        """
        if self.params.repetition_penalty != 1.0:
            seen = _ids({*self.prompt_ids, *self.generated}, logits)
            values, penalty = logits[seen], self.params.repetition_penalty
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if self.params.presence_penalty != 0.0:
            logits[_ids(set(self.generated), logits)] -= self.params.presence_penalty

    def draw(self, values: Tensor, token_ids: Tensor) -> int:
        """Draw from candidates [C], most likely first, on CPU; remembers what it drew."""
        if self.params.temperature == 0:
            chosen = 0
        else:
            uniform = torch.rand((), generator=self._generator, dtype=torch.float64).item()
            shares = _shares(values, self.params)
            reached = torch.cumsum(shares, 0)
            target = uniform * reached[-1].item()
            chosen = int(torch.searchsorted(reached, target, right=True))
            # Rounding may carry the target to the very end; never past the last kept token.
            chosen = min(chosen, int(torch.count_nonzero(shares)) - 1)
        token = int(token_ids[chosen])
        self.generated.append(token)
        return token


def _ids(token_ids: Iterable[int], like: Tensor) -> Tensor:
    return torch.tensor(sorted(token_ids), dtype=torch.long, device=like.device)


def _shares(values: Tensor, params: SamplingParams) -> Tensor:
    """Return the probabilities [C], float64, of candidates sorted by logit; 0 where cut off.

    Top-p keeps the smallest set of most likely tokens whose mass reaches p, at least one; the mass
    is that after top-k, as in vLLM and transformers. Min-p keeps those at least min_p times as
    likely as the best.
    """
    shares = torch.softmax(values.double() / params.temperature, dim=0)
    before = torch.cumsum(shares, 0) - shares
    kept = (before < params.top_p) & (shares >= params.min_p * shares[0])
    kept[0] = True
    return torch.where(kept, shares, 0.0)


def choose(
    head: Head, hidden: Tensor, samplers: Sequence[Sampler], banned: Tensor | None = None
) -> list[int]:
    """Return the next token of each request.

    Args:
        head: of the model.
        hidden: [B, D], normed.
        samplers: B, one a row.
        banned: ids of tokens never drawn; None: any may be.
    """
    banned = torch.tensor([], dtype=torch.long) if banned is None else banned
    whole = [s.has_penalties or not head.screens(s.candidates) for s in samplers]
    tokens = [0] * len(samplers)
    rows = [row for row, needed in enumerate(whole) if needed]
    logits = head(_picked(hidden, rows)) if rows else hidden[:0]
    for place, row in enumerate(rows):
        samplers[row].penalise(logits[place])
    for count, needed in {(s.candidates, w) for s, w in zip(samplers, whole, strict=True)}:
        alike = [i for i, s in enumerate(samplers) if (s.candidates, whole[i]) == (count, needed)]
        if needed:
            some = _picked(logits, [rows.index(row) for row in alike])
            some[:, banned] = float("-inf")
            values, token_ids = top_of(some, count)
        else:
            values, token_ids = head.top(_picked(hidden, alike), count, banned)
        values, token_ids = values.cpu(), token_ids.cpu()
        for place, row in enumerate(alike):
            tokens[row] = samplers[row].draw(values[place], token_ids[place])
    return tokens


def _picked(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Return these rows of x; x itself where they are all of them."""
    return x if len(rows) == len(x) else x[list(rows)]
