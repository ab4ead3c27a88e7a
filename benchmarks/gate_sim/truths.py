"""Draw runs whose truth is known: success probabilities of both arms, tries, and their texts.

Nothing here comes from g4eval. Arrays are [runs, samples] or [runs, samples, repeats].
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTruth:
    """One task and what is true of both arms on it."""

    n: int
    accuracy: float
    icc: float = 0.5  # 0: every sample alike
    base_repeats: int = 4
    repeats: int = 4
    delta: float = 0.0  # candidate minus baseline, mean over the very samples drawn
    how: str = "shift"  # shift: of logits; fail: every try alike; break: whole samples
    noise: float = 0.0  # SD of each sample's own change, in logits
    saturated: float = 0.0  # share of samples that are nearly always right, beside the others
    copied: float = 0.0  # share of samples whose repeats are copies of the first, in both arms
    letters: float = 0.0  # share of samples whose answers are one letter: equal text by chance
    twice: float = 0.0  # share of samples that are another's question, with its completions
    ungraded: float = 0.0  # share of the candidate's tries, all of them wrong, that nobody graded
    subtasks: int = 0  # groups that samples come in; their own spread is part of delta's
    group_sd: float = 0.0  # SD over subtasks of the change, as a fraction
    drawn: bool = False  # delta is of samples like these, not of those drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Runs of one task."""

    base: Floats  # [R, N, kA] 1 right, 0 wrong
    candidate: Floats  # [R, N, kB]
    base_texts: Ints  # equal numbers inside a sample (or question): equal texts
    candidate_texts: Ints
    base_ungraded: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    candidate_ungraded: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    questions: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [N]
    groups: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [N]
    probabilities: Floats = field(default_factory=lambda: np.zeros(0))  # [R, N] of the baseline


def draw(rng: np.random.Generator, truth: TaskTruth, runs: int) -> Drawn:
    """Draw so many pairs of runs."""
    p = difficulties(rng, truth, runs)
    questions = np.arange(truth.n)
    doubles = int(truth.twice * truth.n / 2)
    questions[truth.n - doubles :] = questions[:doubles]
    p = p[:, questions]
    groups = np.arange(truth.n) % truth.subtasks if truth.subtasks else np.zeros(truth.n, np.int64)
    q = _changed(rng, truth, p, groups)[:, questions]
    base, base_texts = _tries(rng, truth, p, truth.base_repeats, questions)
    candidate, texts = _tries(rng, truth, q, truth.repeats, questions)
    ungraded = (candidate == 0) & (rng.random(candidate.shape) < _among_wrong(truth, q))
    return Drawn(
        base=base,
        candidate=candidate,
        base_texts=base_texts,
        candidate_texts=texts,
        base_ungraded=np.zeros(base.shape, np.bool_),
        candidate_ungraded=ungraded,
        questions=questions,
        groups=groups,
        probabilities=p,
    )


def difficulties(rng: np.random.Generator, truth: TaskTruth, runs: int) -> Floats:
    """Return [runs, N] success probabilities of the baseline."""
    shape = (runs, truth.n)
    if truth.icc == 0:
        p = np.full(shape, truth.accuracy)
    else:
        size = 1 / truth.icc - 1
        p = rng.beta(truth.accuracy * size, (1 - truth.accuracy) * size, shape)
        p = np.where(np.isnan(p), truth.accuracy, p)
    if truth.saturated:
        p = np.where(rng.random(shape) < truth.saturated, 1 - 1e-4, p)
    return np.clip(p, TINY, 1 - TINY)


def _changed(rng: np.random.Generator, truth: TaskTruth, p: Floats, groups: Ints) -> Floats:
    if truth.drawn or truth.group_sd:
        return _changed_of_population(rng, truth, p, groups)
    if truth.delta == 0 and truth.noise == 0:
        return p
    if truth.how == "fail":
        return p * (1 - np.clip(-truth.delta / p.mean(axis=1, keepdims=True), 0, 1))
    if truth.how == "break":
        return _broken(rng, p, -truth.delta)
    logits = np.log(p) - np.log1p(-p)
    if truth.noise:
        logits = logits + rng.normal(0, truth.noise, p.shape)
    target = p.mean(axis=1) + truth.delta
    low, high = np.full(len(p), -60.0), np.full(len(p), 60.0)
    for _ in range(45):
        middle = (low + high) / 2
        short = (1 / (1 + np.exp(-(logits + middle[:, None])))).mean(axis=1) < target
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(1 / (1 + np.exp(-(logits + low[:, None]))))


def _broken(rng: np.random.Generator, p: Floats, loss: float) -> Floats:
    """Take whole samples' probabilities away until the mean loss is reached."""
    order = rng.random(p.shape).argsort(axis=1)
    sorted_p = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(sorted_p, axis=1) - sorted_p
    taken = np.clip(loss * p.shape[1] - before, 0, sorted_p)
    q = np.empty_like(p)
    np.put_along_axis(q, order, sorted_p - taken, axis=1)
    return q


def _changed_of_population(
    rng: np.random.Generator, truth: TaskTruth, p: Floats, groups: Ints
) -> Floats:
    """Change samples so that only the expectation over samples like these is delta."""
    if truth.group_sd:
        moves = rng.normal(truth.delta, truth.group_sd, (len(p), truth.subtasks))[:, groups]
        room = truth.accuracy * (1 - truth.accuracy) * (1 - truth.icc)  # expected p (1 - p)
        return np.clip(p + moves * p * (1 - p) / room, TINY, 1 - TINY)
    # A few samples break wholly: of those that are right, so many as lose delta in expectation.
    share = -truth.delta / truth.accuracy
    return np.where(rng.random(p.shape) < share, TINY, p)


def _among_wrong(truth: TaskTruth, q: Floats) -> float:
    wrong = float(1 - q.mean())
    return truth.ungraded / wrong if truth.ungraded else 0.0


def _tries(
    rng: np.random.Generator, truth: TaskTruth, p: Floats, k: int, questions: Ints
) -> tuple[Floats, Ints]:
    runs, n = p.shape
    right = rng.random((runs, n, k)) < p[..., None]
    texts = np.broadcast_to(np.arange(n * k).reshape(n, k), (runs, n, k)).copy()
    if truth.copied:
        is_copied = rng.random((runs, n, 1)) < truth.copied
        right = np.where(is_copied, right[..., :1], right)
        texts = np.where(is_copied, texts[..., :1], texts)
    if truth.letters:
        short = rng.random((runs, n, 1)) < truth.letters
        letter = np.where(right, 0, 1 + rng.integers(0, 3, right.shape)) - 10
        texts = np.where(short, letter, texts)
    if truth.twice:  # an engine that repeats itself where the question does
        right, texts = right[:, questions], texts[:, questions]
    return right.astype(np.float64), texts
