"""What is simulated: one cell a line of the table, each with the rate it must keep."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.gate_sim.doors import Level, level_of, rates_of
from benchmarks.gate_sim.truths import TaskTruth, difficulties
from g4eval.gating.policy import GatePolicy
from g4eval.stats.intervals import both_intervals

SEED = 20261130
INTERVAL_COUNT, LEVEL_COUNT, SUITE_COUNT = 2000, 20_000, 3000
DESIGNS = ("gst", "anytime", "fixed")

# The accuracies Google reports for Gemma 4 31B; repeats of the plan "nightly".
SUITE = {
    "aime": TaskTruth(n=60, accuracy=0.892, icc=0.6, base_repeats=16, repeats=16),
    "gpqa_diamond": TaskTruth(n=198, accuracy=0.843, icc=0.6, base_repeats=8, repeats=8),
    "livecodebench_v6": TaskTruth(n=175, accuracy=0.80, icc=0.6, base_repeats=8, repeats=8),
    "bbeh_mini": TaskTruth(n=460, accuracy=0.744, icc=0.6, base_repeats=4, repeats=4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One simulation: its name, how many runs, and what it returns by name, in [0, 1]."""

    name: str
    kind: str  # interval, level, suite
    count: int
    run: Callable[[int], dict[str, float]]  # of so many runs


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCase:
    """Data that a gate's error rates must hold for."""

    name: str
    tasks: Mapping[str, TaskTruth]
    margin_pt: float
    rules: Mapping[str, Any]


def _one(truth: TaskTruth) -> dict[str, TaskTruth]:
    return {"task": truth}


def level_cases() -> list[LevelCase]:
    """Return the data, the issue of each in its name."""
    t = TaskTruth
    cases = [
        ("198 x 4", _one(t(n=198, accuracy=0.843)), 3.0),
        ("198 x 4, samples move (1 logit)", _one(t(n=198, accuracy=0.843, noise=1.0)), 3.0),
        ("198 x 4, whole samples break", _one(t(n=198, accuracy=0.843, how="break")), 3.0),
        ("198 x 4, all repeats copied", _one(t(n=198, accuracy=0.843, copied=1.0)), 3.0),
        ("198 x 4, a quarter copied", _one(t(n=198, accuracy=0.843, copied=0.25)), 3.0),
        ("30 x 4, all repeats copied", _one(t(n=30, accuracy=0.89, copied=1.0)), 6.0),
        ("198 x 4, 60 % one-letter answers", _one(t(n=198, accuracy=0.5, letters=0.6)), 5.0),
        ("198 x 4, three in ten questions twice", _one(t(n=198, accuracy=0.843, twice=0.3)), 3.0),
        ("175 x 4, saturated", _one(t(n=175, accuracy=0.85, saturated=0.9, how="fail")), 1.5),
        ("30 x 4, rare failures", _one(t(n=30, accuracy=0.89, how="fail")), 6.0),
        ("30 x 16, 97 %", _one(t(n=30, accuracy=0.97, base_repeats=16, repeats=16)), 3.0),
        ("13 x 2", _one(t(n=13, accuracy=0.9, base_repeats=2, repeats=2, how="fail")), 15.0),
        ("198 x 1", _one(t(n=198, accuracy=0.843, base_repeats=1, repeats=1)), 5.0),
        ("600 x 1, 98 %", _one(t(n=600, accuracy=0.98, base_repeats=1, repeats=1)), 1.5),
        (
            "1,055 x 1, 98 %, failures",
            _one(t(n=1055, accuracy=0.98, base_repeats=1, repeats=1, how="fail")),
            1.0,
        ),
        ("198 x 4, hard (2 %)", _one(t(n=198, accuracy=0.05, icc=0.3)), 3.0),
        ("198 x 4, baseline x 16", _one(t(n=198, accuracy=0.843, base_repeats=16)), 3.0),
        ("198 x 2, baseline x 8", _one(t(n=198, accuracy=0.843, base_repeats=8, repeats=2)), 3.0),
        ("460 x 4, 0.49 % ungraded wrong", _one(t(n=460, accuracy=0.744, ungraded=0.0049)), 1.5),
        (
            "three of 30 x 2",
            {name: t(n=30, accuracy=0.9, base_repeats=2, repeats=2) for name in "abc"},
            5.0,
        ),
        (
            "demo: 12 to 16 x 2",
            {f"d{n}": t(n=n, accuracy=0.7, base_repeats=2, repeats=2) for n in (12, 13, 14, 16)},
            10.0,
        ),
    ]  # fmt: skip
    found = [LevelCase(name=n, tasks=d, margin_pt=m, rules={}) for n, d, m in cases]
    drawn = [
        ("60 x 4", t(n=60, accuracy=0.89, drawn=True), 5.0),
        ("198 x 4", t(n=198, accuracy=0.843, drawn=True), 3.0),
        ("100 x 1, 98 %", t(n=100, accuracy=0.98, base_repeats=1, repeats=1, drawn=True), 3.0),
        ("23 subtasks of 20", t(n=460, accuracy=0.744, subtasks=23, group_sd=0.05), 5.0),
    ]
    return found + [
        LevelCase(
            name=f"samples like these: {n}", tasks=_one(d), margin_pt=m, rules={"estimand": "super"}
        )
        for n, d, m in drawn
    ]


def cells() -> Iterator[Cell]:
    """Yield every cell, cheap ones early."""
    for case in level_cases():
        for design in DESIGNS[::2] if case.rules else DESIGNS:  # super is refused for anytime
            yield Cell(
                name=f"{case.name}, {design}",
                kind="level",
                count=LEVEL_COUNT,
                run=lambda count, case=case, design=design: _level(case, design, count),
            )
    for delta in (0.0, -1.5, -3.0, -5.0):
        for name, rules in _efficiency().items():
            yield Cell(
                name=f"nightly, {name}, {delta:+g} everywhere" if delta else f"nightly, {name}, 0",
                kind="suite",
                count=SUITE_COUNT // 3 if rules.get("allocated") else SUITE_COUNT,
                run=lambda count, delta=delta, rules=rules: _suite(delta, count, **rules),
            )
    for n in (13, 30, 198, 460, 600, 1055, 4520):
        for k in (2, 4, 16):
            for p in (0.02, 0.1, 0.5, 0.9, 0.98):
                for icc in (0.0, 0.1, 0.3, 0.6, 0.9):
                    yield Cell(
                        name=f"{n} x {k}, accuracy {p:g}, ICC {icc:g}",
                        kind="interval",
                        count=INTERVAL_COUNT,
                        run=lambda count, n=n, k=k, p=p, icc=icc: coverage(n, k, p, icc, count),
                    )


def _level(case: LevelCase, design: str, count: int) -> dict[str, float]:
    found: Level = level_of(
        case.tasks, margin_pt=case.margin_pt, count=count, seed=SEED, design=design, **case.rules
    )
    return asdict(found)


def _efficiency() -> dict[str, dict[str, Any]]:
    """Return the ways to spend a nightly plan; `base` multiplies the baseline's repeats."""
    return {
        "fixed": {"design": "fixed", "baseline_repeats": "paired"},
        "4 looks, O'Brien-Fleming, paired": {
            "looks": 4, "spending": "obf", "baseline_repeats": "paired",
        },
        "gst": {},
        "gst, repeats where the baseline varies": {"allocated": True},
        "gst, baseline x 4": {"base": 4},
        "gst, baseline x 4, repeats where it varies": {"base": 4, "allocated": True},
        "anytime": {"design": "anytime"},
    }  # fmt: skip


def _suite(
    delta_pt: float, count: int, *, base: int = 1, allocated: bool = False, **rules: Any
) -> dict[str, float]:
    tasks = {
        name: replace(t, delta=delta_pt / 100, base_repeats=base * t.base_repeats)
        for name, t in SUITE.items()
    }
    found = rates_of(tasks, GatePolicy(**rules), count=count, seed=SEED, allocated=allocated)
    return {
        "passed": found.passed,
        "failed": found.failed,
        "primary_failed": found.primary_failed,
        "pairs": found.pairs,
    }


def coverage(n: int, k: int, p: float, icc: float, count: int) -> dict[str, float]:
    """Return how often each 95 % interval holds its truth, and mean widths."""
    rng = np.random.default_rng([SEED, n, k, int(1000 * p), int(1000 * icc)])
    known: dict[bytes, tuple[float, float, float, float]] = {}
    totals = np.zeros(4)
    for _ in range(count):
        chances = difficulties(rng, TaskTruth(n=n, accuracy=p, icc=icc), 1)[0]
        correct = rng.binomial(k, chances)
        key = np.bincount(correct, minlength=k + 1).tobytes()
        if key not in known:
            both = both_intervals(correct, np.full(n, k))
            known[key] = (
                both.samples.low, both.samples.high, both.like_these.low, both.like_these.high,
            )  # fmt: skip
        a, b, c, d = known[key]
        totals += [a <= chances.mean() <= b, c <= p <= d, b - a, d - c]
    names = ("samples", "like_these", "width_samples", "width_like_these")
    return dict(zip(names, (totals / count).tolist(), strict=True))
