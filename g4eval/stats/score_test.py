"""Tests of a mean difference over tasks by its score error, and the limits they leave.

Limits are the differences that the test doesn't reject, so what is printed and what is decided
can't disagree, and no interval is without a width: where no pair differs, a hypothesis still has an
error.
"""

from collections.abc import Sequence

import numpy as np

from g4eval.stats.noise import PairNoise, SuperNoise
from g4eval.stats.paired import Floats, macro_difference

TWO_SIDED_95 = 1.959963984540054
_HALVINGS = 40


def z_of(noise: Sequence[PairNoise | SuperNoise], hypothesis: float) -> Floats:
    """Return how many standard errors the mean over tasks lies above a hypothesis, as a z.

    Every task's true difference is taken to be the hypothesis. Samples like these have few degrees
    of freedom, so there it is the z of the same probability as the t.
    """
    errors = [n.error(hypothesis) for n in noise]
    macro = macro_difference([n.delta for n in noise], errors)
    distance = macro.delta - hypothesis
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(np.where(distance == 0, 0.0, distance / macro.se))
    wide = [n for n in noise if isinstance(n, SuperNoise)]
    return _as_z(ratio, errors, wide) if wide else ratio


def score_limits(
    noise: Sequence[PairNoise | SuperNoise], z: float = TWO_SIDED_95
) -> tuple[float, float]:
    """Return the lowest and highest difference that aren't rejected at a z; of one comparison."""
    return lower_limit(noise, z), upper_limit(noise, z)


def lower_limit(noise: Sequence[PairNoise | SuperNoise], z: float) -> float:
    """Return the lowest difference that isn't rejected from below."""
    return _edge(noise, z, -1.0)


def upper_limit(noise: Sequence[PairNoise | SuperNoise], z: float) -> float:
    """Return the highest difference that isn't rejected from above."""
    return _edge(noise, z, 1.0)


def _edge(noise: Sequence[PairNoise | SuperNoise], z: float, outside: float) -> float:
    inside = float(np.mean([n.delta for n in noise]))
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if abs(float(z_of(noise, middle))) > z:
            outside = middle
        else:
            inside = middle
    return (inside + outside) / 2


def _as_z(ratio: Floats, errors: Sequence[Floats], noise: Sequence[SuperNoise]) -> Floats:
    """Return the z of a t whose degrees of freedom are Welch's and Satterthwaite's.

    Where the mean is skewed away from the hypothesis the t is first brought nearer to it (Johnson
    1978, J. Am. Stat. Assoc. 73): a few samples that break wholly are such a skew.
    """
    from scipy.special import ndtri, stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.asarray(sum(e**2 for e in errors))
        fourth = sum(e**4 / n.degrees for e, n in zip(errors, noise, strict=True))
        degrees = variance**2 / fourth
        skew = sum(n.third for n in noise) / variance**1.5
        sign = np.sign(ratio)
        shift = np.minimum(0.0, sign * np.nan_to_num(skew)) * (1 + 2 * ratio**2) / 6
        nearer = sign * np.maximum(0.0, np.abs(ratio) + shift)
    degrees = np.where(np.isfinite(degrees), degrees, min(n.degrees for n in noise))
    tail = np.maximum(stdtr(degrees, -np.abs(np.nan_to_num(nearer))), 1e-300)
    return np.asarray(np.sign(nearer) * -ndtri(tail))
