"""A checkpoint of random tensors: real sizes where no weights are, for measurements and tests."""

import math

import torch
from torch import Tensor

from g4eval.engines.gemma.config import GemmaConfig
from g4eval.engines.gemma.weights import expected_shapes


class RandomSource:
    """The tensors that a config asks for, drawn where they will live.

    Values are such that activations keep their size: matrices have a variance of one over their
    inputs, norms and scales lie around one. A tensor depends on the seed and its name alone.

    Args:
        config: of the decoder.
        seed: of all tensors.
        device: where they are made.
        dtype: of every tensor.
    """

    where = "random weights"
    norms_include_one = True

    def __init__(
        self, config: GemmaConfig, *, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.shapes = expected_shapes(config)
        self.dtypes: dict[str, str] = {}  # none is refused
        self.nbytes = {
            name: math.prod(shape) * dtype.itemsize for name, shape in self.shapes.items()
        }
        self._places = {name: place for place, name in enumerate(self.shapes)}
        self._seed = seed
        self._device = device
        self._dtype = dtype

    def load(self, name: str) -> Tensor:
        """Return one tensor."""
        shape = self.shapes[name]
        made = torch.Generator(device=self._device)
        made.manual_seed(self._seed * 1_000_003 + self._places[name])
        values = torch.empty(shape, device=self._device, dtype=self._dtype)
        if len(shape) == 1:
            return values.normal_(1.0, 0.1, generator=made)
        return values.normal_(0.0, shape[-1] ** -0.5, generator=made)
