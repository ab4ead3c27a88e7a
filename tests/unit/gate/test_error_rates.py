"""The gate keeps the error rates it states; `nox -s gate-sim` prints the whole table."""

import numpy as np
import pytest

from g4eval.gate.decide import PairedScores, decide
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import plan_rounds
from g4eval.gate.simulate import (
    ONE_TASK,
    SUITE,
    SimulatedTask,
    Truth,
    common_rules,
    everywhere,
    gate_rates,
    monte_carlo_error,
    side_by_side,
    simulate,
)

DESIGNS = [GatePolicy(design="gst"), GatePolicy(design="anytime"), GatePolicy(design="fixed")]
COUNT = 2000


def rates_of(truth, policies=DESIGNS, suite=SUITE, rho=0.6, count=COUNT):
    return gate_rates(suite, truth, policies, rho=rho, count=count, seed=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth",
    [
        Truth(label="everywhere", delta_pt=everywhere(-1.5)),
        Truth(label="smallest benchmark", delta_pt={"aime": -6.0}),
        Truth(label="largest benchmark", delta_pt={"bbeh_mini": -6.0}),
    ],
    ids=lambda truth: truth.label,
)
def test_a_loss_of_exactly_the_margin_passes_at_most_as_often_as_alpha(truth):
    for rates in rates_of(truth):
        assert rates.passed <= 0.05 + 3 * monte_carlo_error(0.05, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_an_equal_candidate_fails_at_most_as_often_as_beta(noise):
    for rates in rates_of(Truth(label="A/A", noise=noise)):
        limit = 3 * monte_carlo_error(0.05, COUNT)
        assert rates.primary_failed <= 0.05 + limit
        # Guardrails add at most their own alpha, and half a point for the early looks.
        assert rates.failed <= 0.05 + 0.01 + 0.005 + limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "passed", "failed", "pairs"),
    [
        (Truth(label="A/A"), 0.941, 0.053, 3922),
        (Truth(label="-0.5", delta_pt=everywhere(-0.5)), 0.696, 0.282, 4566),
        (Truth(label="-1", delta_pt=everywhere(-1.0)), 0.270, 0.700, 4568),
        (Truth(label="-1.5", delta_pt=everywhere(-1.5)), 0.048, 0.940, 3908),
        (Truth(label="-2", delta_pt=everywhere(-2.0)), 0.005, 0.994, 3242),
        (Truth(label="-3", delta_pt=everywhere(-3.0)), 0.000, 1.000, 2424),
        (Truth(label="LiveCodeBench", delta_pt={"livecodebench_v6": -5.0}), 0.044, 0.956, 3390),
        (Truth(label="AIME", delta_pt={"aime": -6.0}), 0.008, 0.992, 2664),
    ],
    ids=lambda value: value.label if isinstance(value, Truth) else None,
)
def test_group_sequential_rates_match_an_independent_simulation(truth, passed, failed, pairs):
    # Passed, failed and mean pairs: 3,000 replications of another implementation.
    (found,) = rates_of(truth, DESIGNS[:1])
    both = np.hypot(monte_carlo_error(passed, 3000), monte_carlo_error(passed, COUNT))
    assert found.passed == pytest.approx(passed, abs=3.5 * both)
    both = np.hypot(monte_carlo_error(failed, 3000), monte_carlo_error(failed, COUNT))
    assert found.failed == pytest.approx(failed, abs=3.5 * both)
    assert found.mean_pairs == pytest.approx(pairs, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "accuracy", "repeats", "margin"),
    [(30, 0.97, 4, 3.0), (30, 0.892, 16, 3.0), (198, 0.843, 1, 3.0), (198, 0.99, 1, 2.0)],
)
def test_small_and_saturated_tasks_keep_alpha(n, accuracy, repeats, margin):
    suite = {"a": SimulatedTask(n_samples=n, accuracy=accuracy, repeats=repeats)}
    truth = Truth(label="margin", delta_pt={"a": -margin})
    policies = [GatePolicy(design=d, margin_pt=margin) for d in ("gst", "anytime", "fixed")]
    for rates in rates_of(truth, policies, suite, rho=0.5, count=4000):
        assert rates.passed <= 0.05 + 3 * monte_carlo_error(0.05, 4000)


@pytest.mark.slow
def test_rules_in_common_use_err_as_often_as_the_docs_say():
    # One run, 198 samples; from 20,000 replications of another implementation.
    equal = side_by_side(0.0, 1, count=COUNT, seed=20)
    assert equal["99 % recovery"].passed == pytest.approx(0.62, abs=0.04)
    lossy = side_by_side(-3.0, 1, count=COUNT, seed=20)
    assert lossy["unpaired z, p >= .05"].passed == pytest.approx(0.95, abs=0.04)
    assert lossy["this gate, margin 3"].passed <= 0.05 + 3 * monte_carlo_error(0.05, COUNT)


def test_the_planted_difference_is_exact_on_the_samples_drawn():
    # With many repeats the observed difference of each comparison is the planted one.
    suite = {"a": SimulatedTask(n_samples=50, accuracy=0.8, repeats=2000)}
    truth = Truth(label="-5", delta_pt={"a": -5.0}, noise=0.5)
    (chunk,) = simulate(suite, truth, rho=0.5, count=4, seed=1)
    found = chunk["a"].candidate.mean(axis=(-2, -1)) - chunk["a"].base.mean(axis=(-2, -1))
    assert found == pytest.approx([-0.05] * 4, abs=0.006)


def test_common_rules_judge_by_their_thresholds():
    base = np.ones((1, 100, 1))
    candidate = base.copy()
    candidate[0, :4] = 0  # 96 of 100: within 5 points, under 99 %, four losses: p = 1/8
    found = common_rules(PairedScores(base=base, candidate=candidate))
    assert {rule: bool(fine[0]) for rule, fine in found.items()} == {
        "within 5 points of the baseline": True,
        "99 % recovery": False,
        "unpaired z, p >= .05": False,  # 4 points against 1.96 * 1.96
        "McNemar, p >= .05": True,
    }


def test_a_simulated_comparison_and_a_single_one_get_the_same_decision():
    (chunk,) = simulate(ONE_TASK, Truth(label="A/A"), rho=0.5, count=5, seed=3)
    policy = GatePolicy(margin_pt=3.0)
    rounds = plan_rounds({"gpqa_diamond": 8}, design="gst", looks=4)
    pair = chunk["gpqa_diamond"]
    together = decide(chunk, rounds, policy)
    for i in range(5):
        alone = decide(
            {"gpqa_diamond": PairedScores(base=pair.base[i], candidate=pair.candidate[i])},
            rounds,
            policy,
        )
        for one, many in zip(alone, together, strict=False):
            assert one.statistic_pass == pytest.approx(many.statistic_pass[i])
            assert one.says == many.says[i]
