"""pass@k and maj@k from n >= k repeats of each sample."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SUBSETS = 200  # k-subsets a sample for maj@k, at most


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the chance that at least one of k repeats, drawn from n, is right.

    1 - C(n-c, k) / C(n, k), as a product; the unbiased estimator of Chen et al. 2021, section 2.1.
    """
    if not 0 < k <= n:
        raise ValueError(f"k = {k} is not in 1..{n}")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def mean_pass_at_k(
    correct: NDArray[np.int64], graded: NDArray[np.int64], k: int
) -> tuple[float, float | None]:
    """Return (mean, standard error over samples) of pass@k; only samples with k repeats count.

    Args:
        correct: [N] right repeats of each sample.
        graded: [N] graded repeats of each sample.
        k: drawn repeats; at least one sample must have so many.
    """
    values = np.array(
        [pass_at_k(int(n), int(c), k) for c, n in zip(correct, graded, strict=True) if n >= k]
    )
    error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
    return float(values.mean()), error


def maj_at_k(answers: Sequence[tuple[str | None, bool]], k: int, *, seed: int = 0) -> float:
    """Return the chance that the most frequent answer of k repeats is right.

    A U-statistic over all k-subsets, or 200 random ones where there are more; ties count as their
    average. No answer is no vote, and a subset without any answer loses.

    Args:
        answers: (answer, is right) of each repeat; equal answers must be equal strings.
        k: drawn repeats, at most len(answers).
        seed: of the subsets.
    """
    if not 0 < k <= len(answers):
        raise ValueError(f"k = {k} is not in 1..{len(answers)}")
    if math.comb(len(answers), k) <= SUBSETS:
        subsets: Iterable[Sequence[int]] = list(combinations(range(len(answers)), k))
    else:
        generator = np.random.default_rng([seed, k])
        subsets = [
            generator.choice(len(answers), size=k, replace=False).tolist() for _ in range(SUBSETS)
        ]
    wins = [_majority([answers[i] for i in subset]) for subset in subsets]
    return sum(wins) / len(wins)


def _majority(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Return the expected rightness of the winner; ties averaged, as random but less noisy."""
    counts = Counter(answer for answer, _ in votes if answer is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    right = {answer: is_right for answer, is_right in votes if answer is not None}
    winners = [answer for answer, count in counts.items() if count == most]
    return sum(right[answer] for answer in winners) / len(winners)
