"""The seam between the forward pass and the device it runs on.

`forward.hidden` is the pass; what it asks of a device is here. Products with weights are the
model's own parts (`Linear`, the MLP, the experts): kernels that want them in another form swap them
once, at loading. Letters as in model.py; A experts a row, C candidates.
"""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from g4eval.engines.gemma.batch import Batch
from g4eval.engines.gemma.config import LayerConfig
from g4eval.engines.gemma.linear import Linear
from g4eval.engines.gemma.model import Block, Gemma

Cache_contra = TypeVar("Cache_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How the next token of each row is drawn, [R] each."""

    temperature: Tensor  # float64; 0: the best token
    top_k: Tensor  # int32, 1 to `Kernels.most_candidates`
    top_p: Tensor  # float64
    min_p: Tensor  # float64
    uniform: Tensor  # float64 in [0, 1): the next number of the request's own stream


class RowsInPlace(Protocol):
    """The rows of one pass, and the keys they see."""

    def heads(self, block: Block, projected: Tensor) -> Tensor:
        """Norm and rotate the heads of every row, and store keys and values in the cache.

        Args:
            block: whose norms, and where its keys and values live.
            projected: [R, (N + K + K) * H]: queries, keys, values as far as the layer owns them.

        Returns:
            Queries [R, N, H].
        """
        ...

    def attend(self, layer: LayerConfig, query: Tensor) -> Tensor:
        """Attend from every row [R, N, H] to what it may see; return [R, N * H]."""
        ...

    def narrow(self, batch: Batch) -> None:
        """Go on with fewer rows: those of `Batch.ends`."""
        ...


class Kernels(Protocol, Generic[Cache_contra]):
    """What the pass asks of a device; each gives a row the same whatever travels with it, if exact.

    A tensor that comes back is the caller's own.
    """

    @property
    def name(self) -> str:
        """What the engine's facts call them."""
        ...

    @property
    def most_candidates(self) -> int:
        """The largest top_k that `sample` takes."""
        ...

    def prepare(self, model: Gemma, batch: Batch, cache: Cache_contra) -> RowsInPlace:
        """Return the batch's rows, ready to be run through the model's blocks."""
        ...

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x [R, D] over its root mean square, times the weight [D]."""
        ...

    def add_norm(
        self,
        x: Tensor,
        branch: Tensor,
        weight: Tensor,
        *,
        scalar: Tensor | None,
        following: tuple[Tensor, ...],
        eps: float,
    ) -> tuple[Tensor, ...]:
        """Add a normed branch to x [R, D], and norm the sum for what comes next.

        Returns:
            (x + norm(branch) * weight) * scalar, then its norm for each weight that follows, two
            at most.
        """
        ...

    def gelu_times(self, product: Linear, x: Tensor, factor: Tensor) -> Tensor:
        """Return the GELU of a product of x [R, in] times `factor` [R, out], by rows."""
        ...

    def sum_of_norms(
        self, left: Tensor, left_weight: Tensor, right: Tensor, right_weight: Tensor, eps: float
    ) -> Tensor:
        """Return norm(left) + norm(right), [R, D]."""
        ...

    def sample(self, logits: Tensor, draws: Draws) -> Tensor:
        """Return each row's next token [R] for logits [R, V] in float32; may change them."""
        ...
