"""Sampling on the card, from each request's own stream of numbers.

A request's numbers are those of its generator on the host, as `sampling.Sampler` draws them: made
ahead, so that a token needs nothing from the host, and a seed means what it always did.
"""

import torch
import triton
from torch import Tensor

from g4eval.engines.gemma.kernels.base import Draws
from g4eval.engines.gemma.kernels.launching import Launching, block_of
from g4eval.engines.gemma.kernels.programs import sampling as programs

MOST_CANDIDATES = 64  # blocks that `draw` holds at once; top_k may be no larger
WIDTH = 256  # logits a block


def stream(seed: int, start: int, count: int) -> Tensor:
    """Return numbers start to start + count of a seed's stream [count], float64 in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(start + count, generator=generator, dtype=torch.float64)[start:]


def sample(logits: Tensor, draws: Draws, launching: Launching) -> Tensor:
    """Return each row's next token [R] for logits [R, V] in float32."""
    rows, vocabulary = logits.shape
    blocks = triton.cdiv(vocabulary, WIDTH)
    best = torch.empty((rows, blocks), dtype=torch.float32, device=logits.device)
    programs.largest[(triton.cdiv(blocks, 16), rows)](
        logits, best, vocabulary, BLOCKS=16, WIDTH=WIDTH, **launching.options(num_warps=4)
    )
    scratch = torch.empty((rows, MOST_CANDIDATES * WIDTH), dtype=torch.int64, device=logits.device)
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    programs.draw[(rows,)](
        logits, best, scratch, draws.uniform, draws.temperature, draws.top_k, draws.top_p,
        draws.min_p, tokens, vocabulary,
        BLOCKS=block_of(blocks, MOST_CANDIDATES), WIDTH=WIDTH, MOST=MOST_CANDIDATES, ROOM=512,
        **launching.options(num_warps=16),
    )  # fmt: skip
    return tokens
