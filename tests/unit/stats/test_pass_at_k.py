import numpy as np
import pytest

from g4eval.stats.pass_at_k import maj_at_k, mean_pass_at_k, pass_at_k


@pytest.mark.parametrize(
    ("n", "correct", "k", "value"),
    [
        (16, 5, 4, 0.81868132),
        (16, 1, 8, 0.5),
        (16, 14, 4, 1.0),
        (10, 3, 1, 0.3),
        (64, 3, 16, 0.58486943),
    ],
)
def test_pass_at_k_is_the_unbiased_estimator(n, correct, k, value) -> None:
    assert pass_at_k(n, correct, k) == pytest.approx(value, abs=1e-8)


def test_more_draws_than_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k = 5 is not in 1\.\.4"):
        pass_at_k(4, 1, 5)


def test_mean_pass_at_k_leaves_out_samples_with_too_few_repeats() -> None:
    value, error = mean_pass_at_k(np.array([1, 2, 0]), np.array([2, 2, 1]), 2)
    assert (value, error) == (1.0, 0.0)


@pytest.mark.parametrize(("k", "value"), [(1, 0.6), (3, 0.648), (5, 0.68256), (9, 0.73343232)])
def test_majority_of_many_repeats_comes_near_the_closed_form(k, value) -> None:
    answers = [("right", True)] * 600 + [("wrong", False)] * 400
    mean = np.mean([maj_at_k(answers, k, seed=seed) for seed in range(40)])
    assert mean == pytest.approx(value, abs=0.02)


def test_majority_of_one_is_the_mean() -> None:
    assert maj_at_k([("a", True), ("b", False), ("b", False)], 1) == pytest.approx(1 / 3)


def test_tie_counts_half() -> None:
    assert maj_at_k([("a", True), ("b", False)], 2) == 0.5


def test_no_answer_is_no_vote() -> None:
    assert maj_at_k([(None, False), (None, False), ("a", True)], 3) == 1.0


def test_no_answer_at_all_loses() -> None:
    assert maj_at_k([(None, False), (None, False)], 2) == 0.0


def test_wrong_answers_that_differ_do_not_gang_up() -> None:
    assert maj_at_k([("1", False), ("2", False), ("r", True), ("r", True)], 4) == 1.0
