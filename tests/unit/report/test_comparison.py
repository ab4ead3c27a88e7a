from dataclasses import replace

import pytest

from g4eval.records import Outcome
from g4eval.report.comparison import compare_runs, comparison_data
from g4eval.report.views import RepeatView, SampleView
from tests.unit.report.synthetic import run_view
from tests.unit.report.verdicts import verdict_record

OUTCOMES = {
    "+": Outcome.CORRECT,
    "-": Outcome.INCORRECT,
    "0": Outcome.NO_ANSWER,
    "?": Outcome.UNGRADED,
}


def run(name, **samples):
    """A run of one task; a sample's tries as text: right, wrong, ungraded."""
    whole = run_view(name, shares={"aime26": 0.5}, limit=2)
    views = tuple(
        SampleView(
            sample_id=sample_id,
            repeats=tuple(
                RepeatView(repeat=i, outcome=OUTCOMES[sign]) for i, sign in enumerate(tries)
            ),
        )
        for sample_id, tries in samples.items()
    )
    return replace(whole, tasks=(replace(whole.tasks[0], samples=views),))


def compare(base, candidate):
    (task,) = compare_runs(run("base", **base), run("cand", **candidate)).tasks
    return task


def test_flips_are_listed_from_the_largest_loss_to_the_largest_gain():
    task = compare(
        {"a": "++", "b": "--", "c": "+-", "d": "++"}, {"a": "--", "b": "++", "c": "+-", "d": "+-"}
    )
    assert [(flip.sample_id, flip.change) for flip in task.flips] == [
        ("a", -1.0),
        ("d", -0.5),
        ("b", 1.0),
    ]
    assert (task.n_lost, task.n_gained) == (2, 1)
    assert task.delta == pytest.approx(-0.125)  # (-1 + 1 + 0 - 0.5) / 4


def test_one_try_a_sample_gets_tangos_interval():
    # 198 samples, 14 lost, 9 gained: Tango's 95 % limits are -0.076468 and 0.023763.
    base = {f"s{i}": "-" if 14 <= i < 23 else "+" for i in range(198)}
    candidate = {f"s{i}": "-" if i < 14 else "+" for i in range(198)}
    task = compare(base, candidate)
    assert (task.n_lost, task.n_gained) == (14, 9)
    assert task.interval is not None
    assert task.interval.method == "score, paired"
    assert task.interval.low == pytest.approx(-0.076468, abs=1e-5)
    assert task.interval.high == pytest.approx(0.023763, abs=1e-5)
    assert task.reading == (
        "no difference beyond the error; a loss of 7.6 points can't be ruled out"
    )


def test_several_tries_use_the_error_of_these_samples():
    # Six samples, four tries: the difference is -1/12. The repeats' own spread gives an error of
    # 0.1179; with some ten pairs that differ, that of the pairs is taken, which is larger.
    signs = str.maketrans("10", "+-")
    base = dict(
        zip("abcdef", "1111 1101 0000 1001 1111 0100".translate(signs).split(), strict=True)
    )
    cand = dict(
        zip("abcdef", "1110 1001 0000 1000 1111 0110".translate(signs).split(), strict=True)
    )
    task = compare(base, cand)
    assert task.interval is not None
    assert task.delta == pytest.approx(-1 / 12)
    assert task.interval.high - task.delta == pytest.approx(0.24970, abs=1e-5)


def test_runs_that_agree_in_everything_still_have_an_interval():
    same = {f"s{i}": "+" for i in range(30)}
    task = compare(same, same)
    assert task.interval is not None
    # Tango at 30 pairs, none discordant: z^2 / (n + z^2)
    assert task.interval.high == pytest.approx(3.8415 / 33.8415, abs=1e-4)
    assert task.interval.low == -task.interval.high
    assert "11.4 points can't be ruled out" in task.reading


def test_samples_without_a_grade_in_both_runs_are_left_out_and_counted():
    task = compare({"a": "+", "b": "?", "c": "+"}, {"a": "-", "b": "+", "d": "+"})
    assert (task.n_paired, task.n_left_out) == (1, 3)
    assert [flip.sample_id for flip in task.flips] == ["a"]


def test_without_a_pair_there_is_no_difference():
    task = compare({"a": "?"}, {"a": "+"})
    assert (task.n_paired, task.interval, task.reading) == (
        0,
        None,
        "no sample was graded in both runs",
    )


def test_a_loss_and_a_gain_beyond_the_error_are_called_so():
    many = {f"s{i}": "+" for i in range(60)}
    none = {f"s{i}": "-" for i in range(60)}
    assert compare(many, none).reading == "a loss beyond the error"
    assert compare(none, many).reading == "a gain beyond the error"


def test_only_the_gates_verdict_on_this_very_pair_is_shown():
    base, candidate = run("base", a="+"), run("cand", a="+")
    verdicts = [
        verdict_record(name, run_id) for name, run_id in (("FAIL", "another"), ("PASS", "base"))
    ]
    judged = replace(candidate, gate_verdicts=tuple(verdicts))
    assert compare_runs(base, judged).verdict == verdicts[1]
    assert compare_runs(base, replace(candidate, gate_verdicts=tuple(verdicts[:1]))).verdict is None


def test_tasks_that_only_one_run_has_are_not_compared():
    other = run_view("other", shares={"gpqa_diamond": 0.5}, limit=2)
    comparison = compare_runs(run("base", a="+"), other)
    assert comparison.tasks == ()
    assert comparison_data(comparison)["tasks"] == []
