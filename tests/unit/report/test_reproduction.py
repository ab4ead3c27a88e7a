import math
from dataclasses import replace

import numpy as np
import pytest

from g4eval.report.diagnosis import diagnose
from g4eval.report.reproduction import (
    Reproduction,
    families,
    not_reproduced,
    reproduce,
    wilson_interval,
)
from g4eval.stats.intervals import hierarchical
from tests.unit.report.cases import aime, estimate, known, livecodebench


def causes(result):
    return [cause.name for cause in diagnose(result)]


@pytest.mark.parametrize(
    ("value", "n", "low", "high"),
    [  # statistics oracles: 27/30, 30/30, 167/198
        (27 / 30, 30, 0.74379, 0.96540),
        (1.0, 30, 0.88649, 1.0),
        (167 / 198, 198, 0.78634, 0.88745),
    ],
)
def test_wilson_interval_of_known_counts(value, n, low, high):
    interval = wilson_interval(value, n)
    assert interval.low == pytest.approx(low, abs=1e-5)
    assert interval.high == pytest.approx(high, abs=1e-5)


def test_a_score_near_the_published_one_is_consistent_and_both_errors_are_in_the_interval():
    result = reproduce(aime(estimate=estimate(0.875, 0.83, 0.915)))
    assert result.verdict is Reproduction.CONSISTENT
    # Published 107/120 = 0.8917, Wilson [0.8233, 0.9357]; printed as 89.2, so 0.892 is used:
    # low  = -0.017 - hypot(0.875 - 0.83, 0.9359 - 0.892) = -0.0798
    # high = -0.017 + hypot(0.915 - 0.875, 0.892 - 0.8237) = 0.0622
    assert known(result.difference).low == pytest.approx(-0.0798, abs=2e-4)
    assert known(result.difference).high == pytest.approx(0.0622, abs=2e-4)
    assert diagnose(result) == ()
    assert result.statement == (
        "87.5 measured, 89.2 published: 1.7 points lower, 95 % interval \N{MINUS SIGN}8.0 to +6.2. "
        "No difference beyond both errors; one under 7.1 can't be seen."
    )


def test_a_score_below_because_of_truncation_says_so_and_that_it_is_enough():
    result = reproduce(
        aime(
            estimate=estimate(
                0.70, 0.65, 0.75, n_truncated=24, n_no_answer=24, if_truncated_right=0.90
            ),
            max_new_tokens=8192,
        )
    )
    assert result.verdict is Reproduction.BELOW
    assert causes(result) == ["truncated answers", "small token budget"]
    truncated = diagnose(result)[0]
    assert "20.0% of the answers were cut off (budget 8,192 tokens)" in truncated.evidence
    assert "would give 90.0, enough to explain it" in truncated.evidence
    assert "65536" in truncated.advice


def test_a_budget_that_was_large_and_not_enough_is_doubled():
    result = reproduce(
        aime(estimate=estimate(0.7, 0.65, 0.75, n_truncated=24, if_truncated_right=0.9))
    )
    assert "max_new_tokens=131072" in diagnose(result)[0].advice


def test_truncation_too_rare_to_explain_the_gap_is_not_called_enough():
    result = reproduce(
        aime(estimate=estimate(0.70, 0.65, 0.75, n_truncated=6, if_truncated_right=0.75))
    )
    assert "not enough to explain it" in diagnose(result)[0].evidence


def test_a_score_above_both_errors_is_above():
    result = reproduce(
        aime(published_as="google/gemma-4-E2B-it", estimate=estimate(0.70, 0.65, 0.75))
    )
    assert (known(result.published).printed, result.verdict) == ("37.5", Reproduction.ABOVE)
    assert "beyond both errors" in result.statement
    assert causes(result) == ["nothing stands out"]


def test_another_livecodebench_window_is_not_comparable_and_named():
    result = reproduce(livecodebench(n_samples=1055, release="release_v6, May 2023 to April 2025"))
    assert result.verdict is Reproduction.NOT_COMPARABLE
    assert result.difference is None
    assert result.statement.startswith(
        "Not comparable: another question set: release_v6, May 2023 to April 2025 here, "
        "v6 increment (175 problems of early 2025) published"
    )
    assert causes(result)[0] == "another release"


def test_the_right_livecodebench_window_is_compared():
    result = reproduce(livecodebench())
    assert result.verdict is Reproduction.CONSISTENT
    assert known(result.protocol).inferred


def test_all_right_still_has_an_error():
    result = reproduce(aime(estimate=estimate(1.0, 0.98, 1.0)))
    assert known(result.difference).low < 0.108 < known(result.difference).high
    assert known(result.difference).high - known(result.difference).low > 0.05


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "fake"}, "the answers are scripted by engine fake"),
        ({"is_partial": True}, "the run is partial"),
        ({"estimate": estimate(n_samples=12)}, "only 12 of 30 samples were measured"),
        ({"estimate": estimate(n_graded=110, n_ungraded=10)}, "10 of 120 answers are ungraded"),
        ({"metric": "maj@4"}, "maj@4 is not accuracy, no tools"),
        ({"benchmark": None}, "no score of gemma-4-31B-it on this task was published"),
        (
            {"estimate": estimate(math.nan, interval=None, n_graded=0)},
            "nothing was graded",
        ),
    ],
)
def test_what_is_not_comparable_and_why(changes, reason):
    result = reproduce(aime(**changes))
    assert result.verdict is Reproduction.NOT_COMPARABLE
    assert reason in result.reasons
    assert result.difference is None


def test_thinking_off_is_compared_all_the_same_and_leads_the_diagnosis():
    result = reproduce(
        aime(thinking="off", share_with_thought=0.0, estimate=estimate(0.55, 0.48, 0.62))
    )
    assert result.verdict is Reproduction.BELOW
    assert causes(result)[0] == "thinking off"
    thinking = next(pair for pair in result.settings if pair.name == "thinking")
    assert (thinking.ours, thinking.published, thinking.differs) == ("off", "on", True)


def test_thinking_asked_for_but_not_seen_is_found():
    result = reproduce(aime(share_with_thought=0.1, estimate=estimate(0.55, 0.48, 0.62)))
    assert causes(result) == ["thinking off"]
    assert "only 10% of the answers hold a thought" in diagnose(result)[0].evidence


def test_a_model_published_without_thinking_is_not_blamed_for_it():
    result = reproduce(
        aime(
            published_as="google/gemma-3-27b-it",
            thinking="off",
            share_with_thought=0.0,
            estimate=estimate(0.10, 0.06, 0.15),
            max_new_tokens=8192,
        )
    )
    assert result.verdict is Reproduction.BELOW
    assert causes(result) == ["nothing stands out"]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"temperature": 0.0}, "other sampling"),
        ({"chat_template_hash": "b" * 64}, "unknown chat template"),
        ({"quantization": "fp8"}, "quantized weights"),
        ({"max_new_tokens": 16384}, "small token budget"),
        ({"estimate": estimate(0.7, 0.65, 0.75, n_no_answer=12)}, "answers not found"),
    ],
)
def test_each_cause_is_found_alone(changes, cause):
    low = {"estimate": estimate(0.70, 0.65, 0.75)} | changes
    assert causes(reproduce(aime(**low))) == [cause]


def test_a_published_score_of_unknown_protocol_gets_one_pass_and_says_so():
    result = reproduce(aime(benchmark="gpqa_diamond", published_as="google/gemma-4-31B-it"))
    assert known(result.published_interval).method == "wilson"
    older = reproduce(
        aime(benchmark="mmlu_pro", n_samples_full=12032, estimate=estimate(n_samples=12032))
    )
    assert known(older.published_interval).method == "wilson, one pass assumed"


def test_other_sources_stand_beside_the_verdict_and_never_in_it():
    result = reproduce(aime())
    assert "sglang-jax-1323" in {row.source_id for row in result.others}
    assert known(result.published).source_id == "g4-tech-report"
    assert result.published not in result.others


def test_only_rows_below_fail_a_strict_run():
    below = reproduce(aime(estimate=estimate(0.55, 0.48, 0.62)))
    others = [reproduce(aime()), reproduce(aime(engine="fake"))]
    assert not_reproduced([below, *others]) == (below,)


def test_the_interval_grows_with_our_own_error():
    narrow = known(reproduce(aime(estimate=estimate(0.89, 0.88, 0.90))).difference)
    wide = known(reproduce(aime(estimate=estimate(0.89, 0.80, 0.95))).difference)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_without_a_published_score_only_what_ails_the_run_itself_is_told():
    unpublished = aime(
        benchmark=None,
        temperature=0.0,
        quantization="fp8",
        max_new_tokens=100,
        estimate=estimate(n_truncated=30, n_no_answer=30),
    )
    assert causes(reproduce(unpublished)) == ["truncated answers"]


def test_what_lies_between_questions_is_no_error_of_a_published_score():
    plain = reproduce(aime(estimate=estimate(0.875, 0.83, 0.915)))
    known_icc = reproduce(aime(estimate=estimate(0.875, 0.83, 0.915), icc=0.6))
    wide, narrow = known(plain.published_interval), known(known_icc.published_interval)
    # 1 - 0.6 of the variance: about sqrt(0.4) of the width.
    assert (narrow.high - narrow.low) / (wide.high - wide.low) == pytest.approx(0.63, abs=0.02)
    assert narrow.method.endswith("ICC 0.60 of our repeats")
    assert "60% of the variance lies between questions" in known_icc.statement
    assert "lies between" not in plain.statement


def test_honest_reruns_are_off_about_as_often_as_stated_and_a_loss_of_five_is_seen():
    # 198 questions; theirs one pass, ours four repeats; ICC 0.65 of Beta-distributed questions.
    random, count = np.random.default_rng(5), 400
    off = seen = 0
    size = 1 / 0.65 - 1
    for _ in range(count):
        p = random.beta(0.843 * size, 0.157 * size, 198)
        theirs = float((random.random(198) < p).mean())
        for loss in (0.0, 0.05):
            q = np.clip(p - loss * p * (1 - p) / (p * (1 - p)).mean(), 0, 1)
            right = random.binomial(4, q)
            mean = right / 4
            within = (mean * (1 - mean) * 4 / 3).mean()
            between = max(0.0, mean.var(ddof=1) - within / 4)
            ours = hierarchical(right, np.full(198, 4))
            score = wilson_interval(theirs, 198 / (1 - between / (between + within)))
            gap = float(mean.mean()) - theirs
            low = gap - math.hypot(mean.mean() - ours.low, score.high - theirs)
            high = gap + math.hypot(ours.high - mean.mean(), theirs - score.low)
            off += loss == 0 and not low <= 0 <= high
            seen += loss > 0 and high < 0
    assert off / count <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert seen / count >= 0.7  # 31 % with the spread between questions in the published error


def test_several_rows_say_how_often_luck_alone_puts_one_of_them_off():
    row = reproduce(aime(estimate=estimate(0.875, 0.83, 0.915)))
    assert families([row]) is None
    told = families([row] * 4)
    assert told is not None
    assert "in 19% of honest reruns" in told
    assert families([row, replace(row, difference=None)]) is None
