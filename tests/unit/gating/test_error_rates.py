"""The gate keeps the error rates it states; `nox -s gate-sim` has the whole table."""

import math

import pytest

from benchmarks.gate_sim.doors import level_of
from benchmarks.gate_sim.truths import TaskTruth

COUNT = 2000


def limit(alpha: float, count: int = COUNT) -> float:
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / count)


# Each was beyond its level before: share of false PASS and of FAIL at no difference, in percent.
FAULTS = {
    "identical repeats (29 and 44)": (TaskTruth(n=198, accuracy=0.843, copied=1.0), 3.0),
    "a quarter copied (9.5 and 12.4)": (TaskTruth(n=198, accuracy=0.843, copied=0.25), 3.0),
    "chance-equal letters": (TaskTruth(n=198, accuracy=0.5, letters=0.6), 5.0),
    "doubled questions (11.7)": (TaskTruth(n=198, accuracy=0.843, twice=0.3), 3.0),
    "saturated (7.6)": (TaskTruth(n=175, accuracy=0.85, saturated=0.9, how="fail"), 1.5),
    "rare failures (6.6)": (TaskTruth(n=30, accuracy=0.89, how="fail"), 6.0),
    "tiny (7.4)": (
        TaskTruth(n=13, accuracy=0.9, base_repeats=2, repeats=2, how="fail"), 15.0,
    ),
    "many once (8.0)": (
        TaskTruth(n=1055, accuracy=0.98, base_repeats=1, repeats=1, how="fail"), 1.0,
    ),
    "ungraded wrong answers (10.1)": (TaskTruth(n=460, accuracy=0.744, ungraded=0.0049), 1.5),
    "a long baseline": (TaskTruth(n=198, accuracy=0.843, base_repeats=16), 3.0),
    "part of the samples": (
        TaskTruth(n=1055, accuracy=0.8, base_repeats=1, repeats=1, noise=1.0), 3.0,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
@pytest.mark.parametrize("name", FAULTS)
def test_neither_verdict_errs_more_often_than_stated(name, design):
    truth, margin = FAULTS[name]
    found = level_of({"a": truth}, margin_pt=margin, design=design, count=COUNT, seed=20)
    assert found.false_pass <= limit(0.05)
    assert found.false_fail <= limit(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_guardrails_break_at_most_as_often_as_stated(design):
    three = {name: TaskTruth(n=30, accuracy=0.9, base_repeats=2, repeats=2) for name in "abc"}
    found = level_of(three, margin_pt=5.0, design=design, count=COUNT, seed=20)
    assert found.guardrail_alone <= limit(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth",
    [
        TaskTruth(n=60, accuracy=0.89, drawn=True),
        TaskTruth(n=460, accuracy=0.744, subtasks=23, group_sd=0.05),
    ],
    ids=["60 questions", "23 subtasks"],
)
def test_samples_like_these_pass_a_loss_of_the_margin_as_seldom_as_stated(truth):
    found = level_of(
        {"a": truth}, margin_pt=5.0, design="gst", count=COUNT, seed=20, estimand="super"
    )
    assert found.false_pass <= limit(0.05)
