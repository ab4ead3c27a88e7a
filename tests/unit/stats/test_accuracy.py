import math

import numpy as np
import pytest

from g4eval.records import Outcome
from g4eval.stats.accuracy import Scored, estimate, se_fixed, se_super, variances

# Six samples with four repeats each, worked out by hand.
A = ["1111", "1101", "0000", "1001", "1111", "0100"]
CORRECT, COUNTS = np.array([4, 3, 0, 2, 4, 1]), np.full(6, 4)


def rows(samples: list[str], truncated: frozenset[tuple[int, int]] = frozenset()) -> list[Scored]:
    words = {
        "1": Outcome.CORRECT,
        "0": Outcome.INCORRECT,
        "-": Outcome.NO_ANSWER,
        "?": Outcome.UNGRADED,
    }
    return [
        Scored(sample=i, outcome=words[c], truncated=(i, j) in truncated)
        for i, sample in enumerate(samples)
        for j, c in enumerate(sample)
    ]


def test_mean_and_both_standard_errors() -> None:
    result = estimate(rows(A))
    assert result.value == pytest.approx(0.58333333, abs=1e-8)
    assert result.se_fixed == pytest.approx(0.07607258, abs=1e-8)
    assert result.se_super == pytest.approx(0.16666667, abs=1e-8)


def test_variance_components_and_icc() -> None:
    parts = variances(CORRECT, COUNTS)
    assert parts is not None
    assert parts.within == pytest.approx(0.13888889, abs=1e-8)
    assert parts.between == pytest.approx(0.13194444, abs=1e-8)
    assert parts.icc == pytest.approx(0.48717949, abs=1e-8)


def test_one_repeat_has_no_error_for_fixed_samples_and_a_wilson_interval() -> None:
    result = estimate(rows(["1"] * 27 + ["0"] * 3))
    assert result.se_fixed is None
    assert result.interval is not None
    assert result.interval.method == "wilson"
    assert result.interval.low == pytest.approx(0.74379, abs=6e-6)


def test_one_sample_has_no_error_for_samples_like_it() -> None:
    result = estimate(rows(["1101"]))
    assert result.se_super is None
    assert result.interval_super is None
    assert result.se_fixed == pytest.approx(0.25)


def test_samples_that_are_all_alike_leave_room_for_others() -> None:
    interval = estimate(rows(["11"] * 30)).interval_super
    assert interval is not None
    assert 0.88 < interval.low < 0.94  # Wilson at 30 of 30: 0.886; at 60 of 60: 0.940
    assert interval.high == pytest.approx(1.0, abs=1e-3)


def test_ungraded_is_left_out_of_the_score_and_counted() -> None:
    result = estimate(rows(["11", "1?", "00"]), n_missing=2)
    assert result.value == pytest.approx(2 / 3)
    assert result.n_ungraded == 3
    assert result.n_graded == 5


def test_no_answer_scores_zero_and_is_counted() -> None:
    result = estimate(rows(["1-", "--"]))
    assert (result.value, result.n_no_answer) == (0.25, 3)


def test_band_of_truncation() -> None:
    result = estimate(rows(["10", "00"], truncated=frozenset({(0, 1), (1, 0)})))
    assert result.value == 0.25
    assert result.if_truncated_right == 0.75
    assert result.if_truncated_left_out == 0.5
    assert result.n_truncated == 2


def test_nothing_graded_has_no_value() -> None:
    result = estimate(rows(["??"]))
    assert math.isnan(result.value)
    assert result.interval is None


def test_unequal_repeats_weigh_samples_equally() -> None:
    assert estimate(rows(["1111", "0"])).value == 0.5


def test_many_samples_have_an_interval_as_few_have() -> None:
    result = estimate(rows(["10"] * 700))
    assert result.interval is not None
    assert result.interval.method == "hierarchical beta-binomial"
    assert result.interval.low < 0.5 < result.interval.high


def test_an_interval_of_more_than_600_right_samples_has_a_width() -> None:
    for n, k in ((601, 4), (1055, 2), (4520, 16)):
        interval = estimate(rows(["1" * k] * n)).interval
        assert interval is not None
        assert 1 - 6 / (n * k) < interval.low < 1 - 1 / (n * k)
        assert interval.high == 1.0


def test_doubling_every_sample_shrinks_errors_by_root_two() -> None:
    twice = np.concatenate([CORRECT, CORRECT]), np.concatenate([COUNTS, COUNTS])
    one, two = se_fixed(CORRECT, COUNTS), se_fixed(*twice)
    assert one is not None
    assert two == pytest.approx(one / math.sqrt(2))
    once, again = se_super(CORRECT, COUNTS), se_super(*twice)
    assert once is not None
    assert again == pytest.approx(once * math.sqrt(5 / 11))
