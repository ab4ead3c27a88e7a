import math

import pytest

from g4eval.stats.power import (
    PlannedTask,
    macro_error,
    pairs_needed,
    provable_margin,
    scale_for_margin,
    super_population_floor,
)

ACCURACY = {"aime": 0.892, "gpqa": 0.843, "lcb": 0.80, "bbeh": 0.744}


@pytest.mark.parametrize(
    ("task", "n", "rho", "margin", "repeats"),
    [
        ("aime", 30, 0.3, 0.01, 278),
        ("aime", 60, 0.5, 0.02, 25),
        ("gpqa", 198, 0.5, 0.01, 42),
        ("gpqa", 198, 0.7, 0.03, 3),
        ("lcb", 175, 0.5, 0.02, 15),
        ("lcb", 1055, 0.3, 0.01, 14),
        ("bbeh", 460, 0.5, 0.01, 26),
        ("bbeh", 4520, 0.5, 0.01, 3),
    ],
)
def test_repeats_a_margin_needs_match_the_planning_table(task, n, rho, margin, repeats):
    assert math.ceil(pairs_needed(ACCURACY[task], rho, margin) / n) == repeats


def test_fewer_pairs_than_samples_means_a_subset_is_enough():
    assert pairs_needed(ACCURACY["bbeh"], 0.3, 0.02) / 4520 == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    ("task", "n", "rho", "points"),
    [("aime", 30, 0.3, 16.7), ("gpqa", 198, 0.7, 5.0), ("bbeh", 4520, 0.5, 1.6)],
)
def test_smallest_margin_of_one_repeat_matches_the_planning_table(task, n, rho, points):
    planned = PlannedTask(n_samples=n, accuracy=ACCURACY[task], repeats=1, rho=rho)
    assert 100 * provable_margin(planned.error) == pytest.approx(points, abs=0.05)


def suite(aime, middle, mini):
    rho = 0.65
    return {
        "aime": PlannedTask(n_samples=60, accuracy=0.892, repeats=aime, rho=rho),
        "gpqa": PlannedTask(n_samples=198, accuracy=0.843, repeats=middle, rho=rho),
        "lcb": PlannedTask(n_samples=175, accuracy=0.80, repeats=middle, rho=rho),
        "bbeh": PlannedTask(n_samples=460, accuracy=0.744, repeats=mini, rho=rho),
    }


@pytest.mark.parametrize(
    ("plan", "pairs", "error", "margins"),
    [
        (suite(4, 2, 1), 1446, 0.84, (2.1, 2.5)),
        (suite(8, 4, 2), 2892, 0.59, (1.5, 1.7)),
        (suite(16, 8, 4), 5784, 0.42, (1.0, 1.2)),
        (suite(32, 16, 8), 11568, 0.30, (0.7, 0.9)),
    ],
)
def test_suite_plans_match_the_planning_table(plan, pairs, error, margins):
    found = macro_error(plan)
    assert sum(task.n_pairs for task in plan.values()) == pairs
    assert 100 * found == pytest.approx(error, abs=0.005)
    assert (
        100 * provable_margin(found),
        100 * provable_margin(found, power=0.9),
    ) == pytest.approx(margins, abs=0.05)


def test_half_the_margin_needs_four_times_the_repeats():
    plan = suite(8, 4, 2)
    assert scale_for_margin(plan, 0.005) == pytest.approx(4 * scale_for_margin(plan, 0.01))


def test_no_repeats_prove_less_than_the_spread_over_samples_allows():
    assert 100 * super_population_floor(0.05, 30) == pytest.approx(2.3, abs=0.05)
