"""Scores other people printed, how they were probably measured, and where they disagree.

The data is `reports/published/`: scores.csv and protocols.yaml (columns: its README). Scores here
are percentages with the digits printed, unlike the fractions of an Estimate.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from g4eval.bundled import bundled_dir

# What a reproduction is judged against, best first: Google's own documents, then the benchmark's.
PRIMARY_SOURCES = ("g4-tech-report", "g4-model-card-hf", "g3-tech-report", "bbeh-leaderboard")
# A benchmark printed without its year or release belongs to the family all the same.
_FAMILIES = ("aime", "livecodebench", "bbeh", "gpqa")
MICRO_AVERAGE = "micro average"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """One printed number and where it stands."""

    model: str  # hub id
    benchmark: str
    metric: str  # as the source calls it
    printed: str  # percent, the digits as printed
    approximate: bool
    thinking: bool | None  # None: not stated
    settings: str
    source_id: str
    source_title: str
    source_date: str
    source_locator: str
    quoted_from: str
    notes: str

    @property
    def value(self) -> float:
        """The score as a fraction in [0, 1]."""
        return float(Decimal(self.printed) / 100)

    @property
    def label(self) -> str:
        """The score as a reader should see it, a tilde before an approximate one."""
        return f"~{self.printed}" if self.approximate else self.printed


class PublishedProtocol(BaseModel):
    """How the scores of some sources on one benchmark were measured, as far as it is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    sources: tuple[str, ...] = Field(min_length=1)
    metric: str
    n_samples: int | None = Field(default=None, gt=0)  # None: not known
    n_repeats: int | None = Field(default=None, gt=0)
    release: str | None = None  # which set, where the benchmark has several
    inferred: bool  # no source states it: it is read off the printed digits
    evidence: str

    @property
    def n_answers(self) -> int | None:
        """Answers behind one score; None where not known."""
        if self.n_samples is None or self.n_repeats is None:
            return None
        return self.n_samples * self.n_repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Scores of one model on one benchmark family that are not one number, primary source first."""

    model: str
    family: str
    scores: tuple[PublishedScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The counts of right answers that a protocol implies for the scores its sources print."""

    protocol: PublishedProtocol
    printed: tuple[str, ...]
    counts: tuple[int | None, ...]  # None: no count fits that score
    smallest_n: int | None  # the smallest number of answers that fits all that fit; None: over 2000


@cache
def published_scores(folder: Path | None = None) -> tuple[PublishedScore, ...]:
    """Return every row of scores.csv, in its order."""
    path = (folder or bundled_dir("reports/published")) / "scores.csv"
    thinking = {"true": True, "false": False, "unknown": None}
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedScore(
                printed=row.pop("score"),
                approximate=row.pop("approximate") == "true",
                thinking=thinking[row.pop("thinking")],
                **row,
            )
            for row in csv.DictReader(file)
        )


@cache
def published_protocols(folder: Path | None = None) -> tuple[PublishedProtocol, ...]:
    """Return every protocol of protocols.yaml, in its order."""
    path = (folder or bundled_dir("reports/published")) / "protocols.yaml"
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[PublishedProtocol]).validate_python(rows))


def protocol_of(score: PublishedScore) -> PublishedProtocol | None:
    """Return how a score was measured; None where nothing is known."""
    for protocol in published_protocols():
        if (
            score.source_id in protocol.sources
            and score.benchmark == protocol.benchmark
            and is_harmonic(score.metric) == is_harmonic(protocol.metric)
        ):
            return protocol
    return None


def is_harmonic(metric: str) -> bool:
    """Whether a metric is BBEH's harmonic mean, which is never comparable with an average."""
    return metric.startswith("harmonic")


def primary_score(model: str, benchmark: str) -> PublishedScore | None:
    """Return the row a reproduction of `model` on `benchmark` is judged against."""
    rows = [
        row
        for row in find_scores(model=model, benchmark=benchmark)
        if row.source_id in PRIMARY_SOURCES and not is_harmonic(row.metric)
    ]
    return min(rows, key=lambda row: PRIMARY_SOURCES.index(row.source_id), default=None)


def find_scores(
    *, model: str | None = None, benchmark: str | None = None, source: str | None = None
) -> tuple[PublishedScore, ...]:
    """Return the rows whose model, benchmark and source contain the given words, case aside.

    A full hub id or benchmark name matches itself alone.
    """
    rows = published_scores()
    wanted = {"model": model, "benchmark": benchmark, "source_id": source}
    for field, word in wanted.items():
        if word is None:
            continue
        low = word.lower()
        exact = [row for row in rows if getattr(row, field).lower() == low]
        rows = tuple(exact or (row for row in rows if low in getattr(row, field).lower()))
    return rows


def family_of(benchmark: str) -> str:
    """Return the family a benchmark belongs to: aime26 -> aime; others are their own."""
    if benchmark.startswith("bbeh"):
        return benchmark  # the mini set is another set, and every source says which one it used
    return next((family for family in _FAMILIES if benchmark.startswith(family)), benchmark)


def disagreements(rows: Iterable[PublishedScore]) -> tuple[Disagreement, ...]:
    """Return where sources print unlike numbers for one model and one benchmark family.

    AIME of different stated years, and rows of different metrics on one benchmark, measure
    different things: they are no disagreement.
    """
    groups: dict[tuple[str, str], list[PublishedScore]] = defaultdict(list)
    for row in rows:
        if not is_harmonic(row.metric) and "examples" not in row.metric:
            groups[row.model, _same_thing(row)].append(row)
    found = []
    for (model, family), members in groups.items():
        if len({Decimal(row.printed) for row in members}) > 1:
            ordered = tuple(sorted(members, key=_primary_first))
            found.append(Disagreement(model=model, family=family, scores=ordered))
    return tuple(found)


def _same_thing(row: PublishedScore) -> str:
    """Return a name shared by rows that a reader would take for the same measurement."""
    if row.benchmark == "aime":  # printed without its year: readers take it for the newest
        return "aime26"
    return row.benchmark if row.benchmark.startswith("aime") else family_of(row.benchmark)


def _primary_first(row: PublishedScore) -> tuple[int, str]:
    known = row.source_id in PRIMARY_SOURCES
    return (PRIMARY_SOURCES.index(row.source_id) if known else len(PRIMARY_SOURCES), row.source_id)


def counts_that_fit(printed: str, n: int) -> tuple[int, ...]:
    """Return every k for which k/n prints as `printed` percent, under either rounding of halves."""
    score = Decimal(printed)
    quantum = Decimal(1).scaleb(int(score.as_tuple().exponent))
    near = int(score * n / 100)
    return tuple(
        k
        for k in range(max(0, near - 1), min(n, near + 2) + 1)
        for share in [Decimal(100 * k) / n]
        if score in {share.quantize(quantum, mode) for mode in (ROUND_HALF_UP, ROUND_HALF_EVEN)}
    )


def smallest_number_of_answers(printed: Sequence[str], limit: int = 2000) -> int | None:
    """Return the smallest n <= limit with a fitting count for every score; None: there is none."""
    return next(
        (n for n in range(1, limit + 1) if all(counts_that_fit(score, n) for score in printed)),
        None,
    )


def arithmetic(protocol: PublishedProtocol) -> Arithmetic | None:
    """Show which counts a protocol implies; None where its number of answers isn't known.

    Scores are those of all its sources, each printed value once, largest first.
    """
    n = protocol.n_answers
    if n is None:
        return None
    printed = {
        row.printed
        for row in published_scores()
        if row.benchmark == protocol.benchmark
        and row.source_id in protocol.sources
        and not is_harmonic(row.metric)
        and not row.approximate
    }
    ordered = tuple(sorted(printed, key=Decimal, reverse=True))
    fits = [counts_that_fit(score, n) for score in ordered]
    fitting = [score for score, ks in zip(ordered, fits, strict=True) if ks]
    return Arithmetic(
        protocol=protocol,
        printed=ordered,
        counts=tuple(ks[0] if ks else None for ks in fits),
        smallest_n=smallest_number_of_answers(fitting) if fitting else None,
    )
