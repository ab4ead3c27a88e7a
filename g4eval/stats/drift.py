"""Teacher-forced drift: how far a candidate's next-token distribution is from the baseline's.

Both engines score the same token ids. Per token, p is the baseline and q the candidate, in nats.
With top-k rows, KL is over the ids that both rows hold, the token that stands there, and one bucket
for the rest: a lower bound on the full KL (data processing), never renormalised. Without, the mean
of ln p - ln q over tokens that the baseline sampled estimates it. Errors are clustered by sequence,
as tokens of one trace depend on each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import NotComparableError
from g4eval.records import Json, TokenScores
from g4eval.stats.paired import Floats

POSITION_EDGES = (0, 1024, 4096, 16384)  # faults of caches and windows grow with position
PERCENTILES = (0.1, 1.0, 5.0, 95.0, 99.0, 99.9)
_TINY = 1e-7  # what float32 log-probabilities can leave for the rest bucket
_CHUNK = 2048  # positions matched at once: K x K each


def kl_divergence(p: Floats, q: Floats) -> float:
    """Return KL(p || q) in nats of two distributions over one set; inf where q has a zero."""
    used = p > 0
    if (q[used] == 0).any():
        return math.inf
    return float((p[used] * np.log(p[used] / q[used])).sum())


def js_divergence(p: Floats, q: Floats) -> float:
    """Return the Jensen-Shannon divergence in nats."""
    middle = (p + q) / 2
    return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


def total_variation(p: Floats, q: Floats) -> float:
    """Return half the sum of absolute differences."""
    return float(np.abs(p - q).sum() / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceDrift:
    """One sequence scored by both engines; arrays over its compared tokens, [n]."""

    task_id: str
    positions: NDArray[np.int64]  # of the token in its sequence, 0-based
    base_logprobs: Floats
    candidate_logprobs: Floats
    kl: Floats | None  # None: scored without top-k
    agree: NDArray[np.bool_] | None  # same most likely token; None: scored without top-k

    @property
    def log_weight(self) -> float:
        """Sum of ln q - ln p over the sequence."""
        return float((self.candidate_logprobs - self.base_logprobs).sum())


def compare_scores(
    task_id: str,
    token_ids: Sequence[int],
    base: TokenScores,
    candidate: TokenScores,
    *,
    prompt_tokens: int,
) -> SequenceDrift:
    """Compare two scorings of one sequence, on the tokens after the prompt.

    Raises NotComparableError where lengths or numbers of top tokens differ.
    """
    first = max(prompt_tokens - 1, 0)  # logprobs[i] belongs to token i + 1
    left, right = (np.asarray(s.logprobs, np.float64)[first:] for s in (base, candidate))
    if len(left) != len(right):
        raise NotComparableError(f"scores: baseline {len(left)} tokens, candidate {len(right)}")
    width = [0 if s.top_ids is None else len(s.top_ids[0]) for s in (base, candidate)]
    if width[0] != width[1]:
        raise NotComparableError(f"top_k: baseline {width[0]}, candidate {width[1]}")
    kl: Floats | None = None
    agree: NDArray[np.bool_] | None = None
    if width[0] and len(left):
        rows = [_top_rows(s, first) for s in (base, candidate)]
        actual = np.asarray(token_ids[first + 1 :], np.int64)
        kl = _top_kl(rows[0], rows[1], actual, left, right)
        agree = rows[0].ids[:, 0] == rows[1].ids[:, 0]
    return SequenceDrift(
        task_id=task_id,
        positions=np.arange(first + 1, first + 1 + len(left)),
        base_logprobs=left,
        candidate_logprobs=right,
        kl=kl,
        agree=agree,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TopRows:
    ids: NDArray[np.int64]  # [n, K]
    logprobs: Floats  # [n, K]


def _top_rows(scores: TokenScores, first: int) -> _TopRows:
    assert scores.top_ids is not None
    assert scores.top_logprobs is not None
    return _TopRows(
        ids=np.asarray(scores.top_ids, np.int64)[first:],
        logprobs=np.asarray(scores.top_logprobs, np.float64)[first:],
    )


def _top_kl(
    base: _TopRows, candidate: _TopRows, actual: NDArray[np.int64], p: Floats, q: Floats
) -> Floats:
    """Return the KL of each position over shared ids, the actual token and the rest."""
    parts = []
    for start in range(0, len(actual), _CHUNK):
        part = slice(start, start + _CHUNK)
        match = base.ids[part, :, None] == candidate.ids[part, None, :]
        shared = match.any(axis=2)
        log_p = base.logprobs[part]
        log_q = np.where(match, candidate.logprobs[part][:, None, :], 0.0).sum(axis=2)
        mass_p = np.where(shared, np.exp(log_p), 0.0)
        mass_q = np.where(shared, np.exp(log_q), 0.0)
        inside = (shared & (base.ids[part] == actual[part, None])).any(axis=1)
        token_p = np.where(inside, 0.0, np.exp(p[part]))
        token_q = np.where(inside, 0.0, np.exp(q[part]))
        rest_p = np.maximum(1 - mass_p.sum(axis=1) - token_p, _TINY)
        rest_q = np.maximum(1 - mass_q.sum(axis=1) - token_q, _TINY)
        kl = (mass_p * (log_p - log_q)).sum(axis=1) + token_p * (p[part] - q[part])
        parts.append(kl + rest_p * np.log(rest_p / rest_q))
    return np.asarray(np.maximum(np.concatenate(parts), 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredMean:
    """A mean over tokens with an error clustered by sequence."""

    mean: float
    se: float  # nan for one sequence
    n: int = 2  # sequences
    log_mean: float = math.nan  # of the sequences' own means, nan where one isn't above 0
    log_sd: float = math.nan

    @property
    def upper(self) -> float:
        """The one-sided 95 % upper limit; the mean itself for one sequence.

        Student's t, or what a log-normal distribution leaves where that is more: KL by trace has a
        heavy tail, and with 16 traces t covers 78 to 85 % of it.
        """
        if math.isnan(self.se):
            return self.mean
        from scipy.special import stdtrit

        limit = self.mean + float(stdtrit(self.n - 1, 0.95)) * self.se
        return limit if math.isnan(self.log_sd) else max(limit, self._log_normal_limit())

    def _log_normal_limit(self) -> float:
        """Return the generalised upper limit of a log-normal mean.

        Source: Krishnamoorthy and Mathew 2003, J. Stat. Plan. Inference 115, 103-121.
        """
        random = np.random.default_rng(20_261_130)  # fixed: the same scores, the same limit
        z, chi = random.standard_normal(20_000), random.chisquare(self.n - 1, 20_000)
        scale = self.log_sd * np.sqrt((self.n - 1) / chi)
        pivots = self.log_mean + z * scale / math.sqrt(self.n) + scale**2 / 2
        return float(np.exp(np.quantile(pivots, 0.95)))

    def as_json(self) -> dict[str, Json]:
        """Return both numbers; the error is None where there is none."""
        return {"mean": self.mean, "se": None if math.isnan(self.se) else self.se}


def clustered_mean(values: Sequence[Floats]) -> ClusteredMean:
    """Return the mean over all tokens of several sequences, [n_i] each."""
    sums = np.array([v.sum() for v in values])
    sizes = np.array([len(v) for v in values], np.float64)
    mean = float(sums.sum() / sizes.sum())
    count = len(values)
    if count < 2:
        return ClusteredMean(mean=mean, se=math.nan)
    spread = float(((sums - mean * sizes) ** 2).sum()) * count / (count - 1)
    own = sums / sizes
    logs = np.log(own) if (own > 0).all() else np.array([math.nan])
    return ClusteredMean(
        mean=mean,
        se=math.sqrt(spread) / float(sizes.sum()),
        n=count,
        log_mean=float(logs.mean()),
        log_sd=float(logs.std(ddof=1)) if len(logs) == count else math.nan,
    )


def kl_increase(lower: Sequence[SequenceDrift], upper: Sequence[SequenceDrift]) -> ClusteredMean:
    """Return how much more KL a token `upper` has than `lower`, in nats.

    Both are drifts from one baseline on the same tokens, and are paired token by token: what makes
    a token hard for either is no error. Clustered by sequence.
    """
    return clustered_mean([_kl_of(b) - _kl_of(a) for a, b in zip(lower, upper, strict=True)])


def _kl_of(sequence: SequenceDrift) -> Floats:
    if sequence.kl is not None:
        return sequence.kl
    return sequence.base_logprobs - sequence.candidate_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSummary:
    """What teacher forcing says of two engines; nats, probabilities as fractions."""

    n_sequences: int
    n_tokens: int
    kl: ClusteredMean | None  # from top-k rows, a lower bound
    sampled_kl: ClusteredMean  # mean ln p - ln q of the tokens themselves: the log ratio of PPLs
    kl_p99: float | None
    kl_p999: float | None
    kl_max: float | None
    kl_max_position: int | None
    top1: ClusteredMean | None  # share of places with the same most likely token
    first_divergence: float | None  # median place after the prompt; None: no top-k, or none differs
    diverged: float | None  # share of sequences where some most likely token differs
    delta_p: ClusteredMean  # q - p of the token itself
    delta_p_rms: float
    delta_p_percentiles: dict[str, float]
    parts: dict[str, "DriftSummary"] = field(default_factory=dict)  # by task and position

    @property
    def best_kl(self) -> ClusteredMean:
        """KL from top-k rows where there are any, else its estimate from sampled tokens."""
        return self.kl if self.kl is not None else self.sampled_kl

    def as_json(self) -> dict[str, Json]:
        """Return every number, parts included."""
        values: dict[str, Any] = {
            "n_sequences": self.n_sequences,
            "n_tokens": self.n_tokens,
            "kl": self.kl and self.kl.as_json(),
            "sampled_kl": self.sampled_kl.as_json(),
            "kl_p99": self.kl_p99,
            "kl_p999": self.kl_p999,
            "kl_max": self.kl_max,
            "kl_max_position": self.kl_max_position,
            "top1": self.top1 and self.top1.as_json(),
            "first_divergence": self.first_divergence,
            "diverged": self.diverged,
            "delta_p": self.delta_p.as_json(),
            "delta_p_rms": self.delta_p_rms,
            "delta_p_percentiles": self.delta_p_percentiles,
        }
        if self.parts:
            values["parts"] = {name: part.as_json() for name, part in self.parts.items()}
        return values


def summarise_drift(sequences: Sequence[SequenceDrift]) -> DriftSummary:
    """Return the summary over all sequences, by task, and by position in the sequence."""
    parts = {
        f"task {task_id}": _summary([s for s in sequences if s.task_id == task_id])
        for task_id in sorted({s.task_id for s in sequences})
    }
    ends = (*POSITION_EDGES[1:], 1 << 62)
    for start, end in zip(POSITION_EDGES, ends, strict=True):
        cut = [_between(s, start, end) for s in sequences]
        cut = [s for s in cut if len(s.positions)]
        if cut:
            parts[f"position {start}+"] = _summary(cut)
    return _summary(sequences, parts)


def _between(s: SequenceDrift, start: int, end: int) -> SequenceDrift:
    inside = (s.positions >= start) & (s.positions < end)
    return SequenceDrift(
        task_id=s.task_id,
        positions=s.positions[inside],
        base_logprobs=s.base_logprobs[inside],
        candidate_logprobs=s.candidate_logprobs[inside],
        kl=None if s.kl is None else s.kl[inside],
        agree=None if s.agree is None else s.agree[inside],
    )


def _summary(
    sequences: Sequence[SequenceDrift], parts: dict[str, DriftSummary] | None = None
) -> DriftSummary:
    changes = [np.exp(s.candidate_logprobs) - np.exp(s.base_logprobs) for s in sequences]
    flat = np.concatenate(changes)
    percentiles = np.percentile(flat, PERCENTILES)
    kls = [s.kl for s in sequences if s.kl is not None]
    kl = np.concatenate(kls) if kls else None
    agrees = [s.agree for s in sequences if s.agree is not None]
    places = [int(np.argmin(a)) for a in agrees if not a.all()]
    return DriftSummary(
        n_sequences=len(sequences),
        n_tokens=len(flat),
        kl=clustered_mean(kls) if kls else None,
        sampled_kl=clustered_mean([s.base_logprobs - s.candidate_logprobs for s in sequences]),
        kl_p99=None if kl is None else float(np.percentile(kl, 99)),
        kl_p999=None if kl is None else float(np.percentile(kl, 99.9)),
        kl_max=None if kl is None else float(kl.max()),
        kl_max_position=None
        if kl is None
        else int(np.concatenate([s.positions for s in sequences])[kl.argmax()]),
        top1=clustered_mean([a.astype(np.float64) for a in agrees]) if agrees else None,
        first_divergence=float(median(places)) if places else None,
        diverged=len(places) / len(agrees) if agrees else None,
        delta_p=clustered_mean(changes),
        delta_p_rms=float(np.sqrt((flat**2).mean())),
        delta_p_percentiles={
            f"{p:g}": float(v) for p, v in zip(PERCENTILES, percentiles, strict=True)
        },
        parts=parts or {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OffPolicy:
    """The accuracy difference estimated from the baseline's traces alone, without generating."""

    delta: float  # self-normalised importance sampling
    first_order: float  # covariance of log weight and score
    se: float
    ess_share: float  # effective sample size / n
    log_weight_variance: float

    @property
    def is_applicable(self) -> bool:
        """Whether the change is small enough: weights near 1, nearly all traces count."""
        return self.log_weight_variance <= 0.3 and self.ess_share >= 0.7


def off_policy_difference(log_weights: Floats, scores: Floats) -> OffPolicy:
    """Estimate candidate minus baseline from traces the baseline sampled.

    Only for tiny changes (kernels, engine versions): both engines teacher-forced in one way, under
    the sampling distribution. Whatever only decoding does is invisible to it.

    Args:
        log_weights: [n] sum of ln q - ln p over each trace.
        scores: [n] 1.0 right, 0.0 wrong.
    """
    n = len(scores)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.mean()
    weighted = float((weights * scores).mean())
    influence = weights * (scores - weighted) - (scores - scores.mean())
    return OffPolicy(
        delta=weighted - float(scores.mean()),
        first_order=float(np.cov(log_weights, scores, ddof=1)[0, 1]) if n > 1 else math.nan,
        se=float(influence.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
        ess_share=float(1 / (weights**2).mean()),
        log_weight_variance=float(log_weights.var(ddof=1)) if n > 1 else math.nan,
    )
