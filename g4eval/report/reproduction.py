"""Does a measured score reproduce a published one? An interval statement, with reasons.

Both numbers have an error: ours, and the published number's own, which follows from how many
answers stand behind it. The verdict is about the same questions asked again, so neither error
holds the spread between questions. `diagnosis.py` says what may explain a difference.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from g4eval.records import Estimate, Interval
from g4eval.report.published import (
    MICRO_AVERAGE,
    PublishedProtocol,
    PublishedScore,
    find_scores,
    is_harmonic,
    primary_score,
    protocol_of,
)

Z95 = 1.959963984540054  # two-sided 95 %
SILENT = "not stated"
UNGRADED_LIMIT = 0.01  # above this share a score isn't of the whole task
_SAME_METRIC = {"accuracy", "pass@1", MICRO_AVERAGE}  # all: the share of answers that are right


class Reproduction(StrEnum):
    """How a measured score stands to the published one."""

    CONSISTENT = "consistent"
    BELOW = "below"
    ABOVE = "above"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A score of ours and what a reader must know to compare it."""

    model: str
    published_as: str | None  # hub id under which the model's scores are published
    benchmark: str | None  # in scores.csv; None: nobody published scores of this task
    estimate: Estimate
    icc: float | None = None  # share of our answers' variance between questions; None: one repeat
    metric: str  # accuracy, pass@1, micro average
    release: str | None = None  # which set, where the benchmark has several
    n_samples_full: int  # samples the benchmark has
    is_partial: bool  # a subset, unequal repeats or incomplete data
    engine: str
    thinking: str = "unknown"  # on, off, unknown
    share_with_thought: float | None = None  # of completions; None: none stored
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 64
    max_new_tokens: int = 32768
    unknown: tuple[str, ...] = ()  # of prompt, temperature, ..., what an import's user didn't state
    quantization: str = "unknown"  # "none": as published
    chat_template_hash: str = "unknown"
    known_template_hashes: tuple[str, ...] = ()  # of the model's profile; empty: none recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingPair:
    """One setting on both sides, in words."""

    name: str
    ours: str
    published: str  # "not stated" where the source is silent
    differs: bool | None  # None: can't be told


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionResult:
    """The verdict on one row, with everything a sceptical reader asks for."""

    verdict: Reproduction
    measurement: Measurement
    published: PublishedScore | None  # None: nobody published one
    protocol: PublishedProtocol | None  # None: not known
    published_interval: Interval | None  # 95 %, the same questions asked again
    difference: Interval | None  # ours minus published, 95 %; None: not comparable
    reasons: tuple[str, ...]  # why the two don't measure one thing
    settings: tuple[SettingPair, ...]
    others: tuple[PublishedScore, ...]  # what else was printed for this model and benchmark

    @property
    def statement(self) -> str:
        """The verdict as one sentence or two."""
        if self.difference is None or self.published is None:
            return "Not comparable: " + "; ".join(self.reasons) + "."
        gap = self.measurement.estimate.value - self.published.value
        low, high = _points(self.difference.low), _points(self.difference.high)
        side = "higher" if gap > 0 else "lower"
        opening = (
            f"{100 * self.measurement.estimate.value:.1f} measured, {self.published.label} "
            f"published: {abs(100 * gap):.1f} points {side}, 95 % interval {low} to {high}."
        )
        if self.verdict is Reproduction.CONSISTENT:
            reach = 50 * (self.difference.high - self.difference.low)
            return (
                f"{opening} No difference beyond both errors; one under {reach:.1f} can't be seen."
                f"{self._icc}"
            )
        return f"{opening} The difference is beyond both errors.{self._icc}"

    @property
    def _icc(self) -> str:
        """How the published number's error was got, where our repeats said something of it."""
        icc = self.measurement.icc
        if icc is None or self.published_interval is None:
            return ""
        return f" ({icc:.0%} of the variance lies between questions, as our repeats show.)"


def reproduce(measurement: Measurement) -> ReproductionResult:
    """Judge a measurement against the published score of its model and benchmark."""
    published = _published_for(measurement)
    protocol = None if published is None else protocol_of(published)
    reasons = _reasons(measurement, published, protocol)
    theirs = None if published is None else _published_interval(measurement, published, protocol)
    difference = None
    verdict = Reproduction.NOT_COMPARABLE
    if not reasons and published is not None and theirs is not None:
        difference = _difference(measurement.estimate, published.value, theirs)
        verdict = _verdict(difference)
    return ReproductionResult(
        verdict=verdict,
        measurement=measurement,
        published=published,
        protocol=protocol,
        published_interval=theirs,
        difference=difference,
        reasons=reasons,
        settings=_settings(measurement, published, protocol),
        others=_others(measurement, published),
    )


def not_reproduced(results: Iterable[ReproductionResult]) -> tuple[ReproductionResult, ...]:
    """Return the rows that fail `--strict`: those below the published score."""
    return tuple(result for result in results if result.verdict is Reproduction.BELOW)


def families(results: Iterable[ReproductionResult]) -> str | None:
    """Say what several rows together mean; None for fewer than two that were compared."""
    rows = [r for r in results if r.difference is not None]
    if len(rows) < 2:
        return None
    chance = 1 - 0.95 ** len(rows)
    odd = [r for r in rows if r.verdict is not Reproduction.CONSISTENT]
    text = (
        f"{len(rows)} rows were compared, each at 95 %: by luck alone at least one would be below "
        f"or above in {chance:.0%} of honest reruns"
    )
    return text + (f"; {len(odd)} of them {'is' if len(odd) == 1 else 'are'}." if odd else ".")


def wilson_interval(value: float, n: float) -> Interval:
    """Return the Wilson 95 % interval of a share `value` among n answers."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    spread = value * (1 - value) / n + Z95**2 / (4 * n * n)
    half = Z95 * math.sqrt(spread) / (1 + Z95**2 / n)
    return Interval(
        low=min(value, max(0.0, centre - half)),
        high=max(value, min(1.0, centre + half)),
        method="wilson",
    )


def _published_for(measurement: Measurement) -> PublishedScore | None:
    if measurement.published_as is None or measurement.benchmark is None:
        return None
    return primary_score(measurement.published_as, measurement.benchmark)


def _reasons(
    measurement: Measurement,
    published: PublishedScore | None,
    protocol: PublishedProtocol | None,
) -> tuple[str, ...]:
    """Say why the two don't measure one thing; how it was served is no such reason."""
    if published is None:
        name = measurement.model.rpartition("/")[2] or measurement.model
        return (f"no score of {name} on this task was published",)
    estimate = measurement.estimate
    answers = estimate.n_graded + estimate.n_ungraded
    reasons = []
    if measurement.engine == "fake":
        reasons.append("the answers are scripted by engine fake")
    if math.isnan(estimate.value) or estimate.interval is None:
        reasons.append("nothing was graded")
    if measurement.is_partial or estimate.n_samples < measurement.n_samples_full:
        reasons.append(
            f"only {estimate.n_samples} of {measurement.n_samples_full} samples were measured"
            if estimate.n_samples < measurement.n_samples_full
            else "the run is partial"
        )
    if answers and estimate.n_ungraded / answers > UNGRADED_LIMIT:
        reasons.append(f"{estimate.n_ungraded} of {answers} answers are ungraded")
    if measurement.metric not in _SAME_METRIC or is_harmonic(published.metric):
        reasons.append(f"{measurement.metric} is not {published.metric}")
    reasons += other_set(measurement, protocol)
    return tuple(reasons)


def other_set(measurement: Measurement, protocol: PublishedProtocol | None) -> list[str]:
    """Compare the question sets: the release by name, and by its number of samples."""
    if protocol is None or protocol.n_samples is None:
        return []
    if measurement.n_samples_full == protocol.n_samples:
        return []
    ours = measurement.release or f"{measurement.n_samples_full} samples"
    theirs = protocol.release or f"{protocol.n_samples} samples"
    return [f"another question set: {ours} here, {theirs} published"]


def _published_interval(
    measurement: Measurement, published: PublishedScore, protocol: PublishedProtocol | None
) -> Interval:
    """Return the published number's own error: its questions asked again.

    Its variance is p (1 - p) (1 - ICC) / n: what lies between questions is no error. The ICC is
    that of our own repeats of the same questions by the same model; with one repeat it is unknown,
    and 0 gives the widest that the error can be. Where the number of answers is not known, one pass
    over the task is assumed, and the method says so.
    """
    n = protocol.n_answers if protocol is not None else None
    icc = measurement.icc
    same = 0.0 if icc is None else min(0.99, max(0.0, icc))
    found = wilson_interval(published.value, (n or max(1, measurement.n_samples_full)) / (1 - same))
    method = "wilson" if n is not None else "wilson, one pass assumed"
    method += "" if icc is None else f", ICC {same:.2f} of our repeats"
    return Interval(low=found.low, high=found.high, method=method)


def _difference(estimate: Estimate, published: float, theirs: Interval) -> Interval:
    """Combine two intervals into one of the difference.

    Source: Newcombe 1998, method 10; generalised by Zou and Donner 2008 (MOVER). It needs no
    normal approximation, so 30 of 30 right still has an error.
    """
    ours = estimate.interval
    assert ours is not None
    gap = estimate.value - published
    return Interval(
        low=gap - math.hypot(estimate.value - ours.low, theirs.high - published),
        high=gap + math.hypot(ours.high - estimate.value, published - theirs.low),
        method="Newcombe, square and add",
    )


def _verdict(difference: Interval) -> Reproduction:
    if difference.high < 0:
        return Reproduction.BELOW
    return Reproduction.ABOVE if difference.low > 0 else Reproduction.CONSISTENT


def _settings(
    measurement: Measurement,
    published: PublishedScore | None,
    protocol: PublishedProtocol | None,
) -> tuple[SettingPair, ...]:
    if published is None:
        return ()
    thinking = {True: "on", False: "off", None: SILENT}[published.thinking]
    known_thinking = published.thinking is not None and measurement.thinking in ("on", "off")
    drawn = (measurement.temperature, measurement.top_p, measurement.top_k)
    names = ("temperature", "top_p", "top_k")
    sampling = " / ".join(
        "unknown" if name in measurement.unknown else f"{value:g}"
        for name, value in zip(names, drawn, strict=True)
    )
    budget = f"{measurement.max_new_tokens:,}"
    quantization = measurement.quantization
    quantized = None if quantization == "unknown" else quantization != "none"
    inferred = " (inferred)" if protocol is not None and protocol.inferred else ""
    repeats = protocol.n_repeats if protocol is not None else None
    samples = protocol.n_samples if protocol is not None else None
    return (
        _counts("questions", measurement.n_samples_full, samples, inferred),
        _counts("tries per question", measurement.estimate.n_repeats, repeats, inferred),
        _setting(
            "thinking",
            measurement.thinking,
            thinking,
            measurement.thinking != thinking if known_thinking else None,
        ),
        _setting("temperature / top-p / top-k", sampling, f"{SILENT} (recommended: 1 / 0.95 / 64)"),
        _setting(
            "token budget",
            "unknown" if "max_new_tokens" in measurement.unknown else budget,
            SILENT,
        ),
        _setting("weights", quantization, "as released, BF16", quantized),
        _setting("metric", measurement.metric, published.metric),
    )


def _setting(
    name: str,
    ours: str,
    published: str,
    differs: bool | None = None,  # noqa: FBT001  a field
) -> SettingPair:
    return SettingPair(name=name, ours=ours, published=published, differs=differs)


def _counts(name: str, ours: int, theirs: int | None, inferred: str) -> SettingPair:
    published = SILENT if theirs is None else f"{theirs:,}{inferred}"
    return _setting(name, f"{ours:,}", published, None if theirs is None else ours != theirs)


def _others(
    measurement: Measurement, published: PublishedScore | None
) -> tuple[PublishedScore, ...]:
    if published is None or measurement.benchmark is None:
        return ()
    rows = find_scores(model=published.model, benchmark=measurement.benchmark)
    return tuple(row for row in rows if row is not published)


def _points(fraction: float) -> str:
    """Write a difference in points, with a sign: +1.2, -3.4 (a real minus)."""
    return f"{100 * fraction:+.1f}".replace("-", "\N{MINUS SIGN}")
