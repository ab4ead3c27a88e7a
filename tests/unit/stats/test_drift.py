import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4eval.errors import NotComparableError
from g4eval.records import TokenScores
from g4eval.stats.drift import (
    clustered_mean,
    compare_scores,
    js_divergence,
    kl_divergence,
    kl_increase,
    off_policy_difference,
    summarise_drift,
    total_variation,
)

P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.6, 0.3, 0.1])


def rows(distribution, token_ids, top_k, places=None):
    """Scores of an engine that predicts one distribution everywhere, or one per place."""
    n = len(token_ids) - 1
    table = np.tile(distribution, (n, 1)) if places is None else np.asarray(places)
    order = np.argsort(-table, axis=1, kind="stable")[:, :top_k]
    return TokenScores(
        logprobs=[math.log(table[i, t]) for i, t in enumerate(token_ids[1:])],
        top_ids=order.tolist() if top_k else None,
        top_logprobs=np.log(np.take_along_axis(table, order, 1)).tolist() if top_k else None,
    )


def drift_of(p, q, token_ids, top_k, prompt_tokens=1):
    return compare_scores(
        "demo",
        token_ids,
        rows(p, token_ids, top_k),
        rows(q, token_ids, top_k),
        prompt_tokens=prompt_tokens,
    )


def test_divergences_of_three_outcomes_match_the_worked_example():
    assert kl_divergence(P, Q) == pytest.approx(0.02681245, abs=1e-8)
    assert kl_divergence(Q, P) == pytest.approx(0.02914912, abs=1e-8)
    assert js_divergence(P, Q) == pytest.approx(0.00695886, abs=1e-8)
    assert total_variation(P, Q) == pytest.approx(0.1)


def test_divergence_from_a_zero_is_infinite():
    assert kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf


def test_all_tokens_in_the_top_rows_give_the_full_divergence():
    found = drift_of(P, Q, [0, 1, 0, 2], top_k=3)
    assert found.kl == pytest.approx([0.02681245] * 3, abs=1e-6)
    assert found.agree.tolist() == [True] * 3


def test_top_token_and_the_actual_one_get_their_own_buckets():
    # Token 1 stands at the place: buckets 0 (top), 1 (actual), rest = 2: the full divergence.
    found = drift_of(P, Q, [0, 1], top_k=1)
    assert found.kl == pytest.approx([0.02681245], abs=1e-6)
    # Token 0 stands there: buckets 0 and rest, .7 / .3 against .6 / .4.
    found = drift_of(P, Q, [1, 0], top_k=1)
    expected = 0.7 * math.log(0.7 / 0.6) + 0.3 * math.log(0.3 / 0.4)
    assert found.kl == pytest.approx([expected], abs=1e-6)


def test_other_top_tokens_do_not_agree_and_still_give_a_lower_bound():
    other = np.array([0.2, 0.7, 0.1])
    found = drift_of(P, other, [2, 2], top_k=1)
    assert found.agree.tolist() == [False]
    assert 0 <= found.kl[0] <= kl_divergence(P, other)


def test_equal_scores_have_no_drift_at_all():
    found = drift_of(P, P, [0, 1, 0, 2], top_k=2)
    assert found.kl.tolist() == [0.0] * 3
    assert found.log_weight == 0.0


distributions = st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6).map(
    lambda weights: np.array(weights) / sum(weights)
)


@given(distributions, distributions, st.integers(0, 5), st.integers(1, 6))
def test_top_k_divergence_is_never_above_the_full_one(p, q, token, top_k):
    found = drift_of(p, q, [0, token], top_k=top_k)
    assert -1e-12 <= found.kl[0] <= kl_divergence(p, q) + 1e-6


def test_prompt_tokens_are_not_compared():
    found = drift_of(P, Q, [0, 1, 2, 0, 1], top_k=0, prompt_tokens=3)
    assert found.positions.tolist() == [3, 4]
    assert found.base_logprobs == pytest.approx([math.log(0.7), math.log(0.2)])
    assert found.kl is None


def test_unequal_numbers_of_top_tokens_are_refused():
    with pytest.raises(NotComparableError, match="top_k: baseline 2, candidate 3"):
        compare_scores("demo", [0, 1], rows(P, [0, 1], 2), rows(Q, [0, 1], 3), prompt_tokens=1)


def test_sequences_of_other_lengths_are_refused():
    with pytest.raises(NotComparableError, match="baseline 1 tokens, candidate 2"):
        compare_scores("demo", [0, 1], rows(P, [0, 1], 0), rows(Q, [0, 1, 2], 0), prompt_tokens=1)


def test_error_of_a_token_mean_is_clustered_by_sequence():
    # Sums 2 and 0 over 2 tokens each: mean .5, residuals 1 and -1 -> sqrt(2 * 2) / 4.
    found = clustered_mean([np.array([1.0, 1.0]), np.array([0.0, 0.0])])
    assert (found.mean, found.se) == (0.5, 0.5)
    assert found.upper == pytest.approx(0.5 + 6.313752 * 0.5)  # one degree of freedom


def test_one_sequence_has_no_error():
    found = clustered_mean([np.array([1.0, 3.0])])
    assert math.isnan(found.se)
    assert found.upper == 2.0


def test_summary_finds_the_first_divergence_and_the_largest_one():
    ids = [0, 0, 0, 0]
    flip = np.array([0.2, 0.7, 0.1])
    base = rows(P, ids, 3)
    candidate = rows(None, ids, 3, places=[P, Q, flip])
    found = summarise_drift([compare_scores("demo", ids, base, candidate, prompt_tokens=1)])
    assert found.first_divergence == 2
    assert found.diverged == 1.0
    assert found.top1 is not None
    assert found.top1.mean == pytest.approx(2 / 3)
    assert found.kl_max == pytest.approx(kl_divergence(P, flip), abs=1e-6)
    assert found.kl_max_position == 3
    assert found.delta_p.mean == pytest.approx((0 - 0.1 - 0.5) / 3)
    assert found.delta_p_rms == pytest.approx(math.sqrt((0.01 + 0.25) / 3))


def test_summary_is_split_by_task_and_by_position():
    long = [0] * 1100
    found = summarise_drift([drift_of(P, Q, long, 0), drift_of(P, P, [0, 1], 0)])
    assert set(found.parts) == {"task demo", "position 0+", "position 1024+"}
    assert found.parts["position 1024+"].n_tokens == 76
    assert found.parts["position 0+"].n_sequences == 2
    assert found.best_kl is found.sampled_kl
    assert found.as_json()["parts"]["position 1024+"]["kl"] is None


def test_equal_engines_have_no_off_policy_difference_and_full_weight():
    found = off_policy_difference(np.zeros(50), np.array([0.0, 1.0] * 25))
    assert (found.delta, found.se, found.ess_share) == (0.0, 0.0, 1.0)
    assert found.is_applicable


def test_off_policy_difference_of_two_traces_by_hand():
    # weights 2 and 1 (relative): (2 * 1 + 1 * 0) / 3 - 1/2
    found = off_policy_difference(np.log([2.0, 1.0]), np.array([1.0, 0.0]))
    assert found.delta == pytest.approx(1 / 6)
    assert found.ess_share == pytest.approx(9 / 10)
    assert found.first_order == pytest.approx(math.log(2) / 2)


def test_off_policy_recovers_a_tiny_planted_change():
    rng = np.random.default_rng(5)
    scores = (rng.random(20_000) < 0.6).astype(float)
    # Right traces become 1.02 times as likely, wrong ones make room: 0.612.
    weights = np.where(scores == 1, 1.02, (1 - 0.612) / 0.4)
    found = off_policy_difference(np.log(weights), scores)
    assert found.delta == pytest.approx(0.012, abs=4e-4)
    assert found.is_applicable


def test_off_policy_refuses_large_changes():
    weights = np.random.default_rng(1).normal(0, 2, 500)
    assert not off_policy_difference(weights, np.ones(500)).is_applicable


def test_a_step_of_a_ladder_is_paired_token_by_token():
    # Tokens differ a hundredfold in drift, and each has .001 more on the upper rung: no error.
    tokens = [[0, 1, 0, 2], [0, 2, 2]]
    lower = [drift_of(P, Q, ids, top_k=3) for ids in tokens]
    moved = [replace(s, kl=s.kl * np.linspace(1, 100, len(s.kl))) for s in lower]
    upper = [replace(s, kl=s.kl + 0.001) for s in moved]
    step = kl_increase(moved, upper)
    assert step.mean == pytest.approx(0.001)
    assert step.se == pytest.approx(0, abs=1e-12)
    assert kl_increase(upper, moved).mean == pytest.approx(-0.001)


def test_a_step_without_top_tokens_uses_the_tokens_themselves():
    lower, upper = (drift_of(P, q, [0, 1, 0], top_k=0) for q in (P, Q))
    # ln .2/.3 and ln .7/.6
    expected = (math.log(0.2 / 0.3) + math.log(0.7 / 0.6)) / 2
    assert kl_increase([lower], [upper]).mean == pytest.approx(expected)


@pytest.mark.parametrize(("sd", "least"), [(0.2, 0.93), (1.0, 0.93), (1.5, 0.93)])
def test_the_upper_limit_covers_a_heavy_tailed_mean_of_sixteen_traces(sd, least):
    random, hits = np.random.default_rng(3), 0
    for _ in range(400):
        traces = [np.full(10, value) for value in random.lognormal(0, sd, 16)]
        hits += clustered_mean(traces).upper >= math.exp(sd**2 / 2)
    assert hits / 400 >= least - 3 * math.sqrt(0.93 * 0.07 / 400)


def test_the_upper_limit_of_negative_estimates_is_students():
    found = clustered_mean([np.array([x]) for x in (-1.0, 0.0, 1.0, 2.0)])
    assert found.upper == pytest.approx(0.5 + 2.353363 * found.se)
