"""Invented estimates and measurements that the tests of this folder share."""

from dataclasses import replace
from typing import TypeVar

from g4eval.records import Estimate, Interval
from g4eval.report.reproduction import Measurement

T = TypeVar("T")


def known(value: T | None) -> T:
    """What a test knows to be there."""
    assert value is not None
    return value


def estimate(value=0.89, low=0.84, high=0.93, **changes):
    whole = Estimate(
        value=value,
        se_fixed=0.02,
        se_super=0.045,
        interval=Interval(low=low, high=high, method="hierarchical beta-binomial"),
        interval_super=Interval(low=value - 0.09, high=min(1.0, value + 0.09), method="t"),
        n_samples=30,
        n_repeats=4,
        n_graded=120,
        n_truncated=0,
        n_no_answer=0,
        n_ungraded=0,
        if_truncated_right=value,
        if_truncated_left_out=value,
    )
    return replace(whole, **changes)


def aime(**changes):
    """The 31B on AIME 2026 as the card describes it: 89.2 published, 4 x 30."""
    whole = Measurement(
        model="google/gemma-4-31B-it",
        published_as="google/gemma-4-31B-it",
        benchmark="aime26",
        estimate=estimate(),
        metric="accuracy",
        n_samples_full=30,
        is_partial=False,
        engine="vllm",
        thinking="on",
        share_with_thought=1.0,
        max_new_tokens=65536,
        quantization="none",
        chat_template_hash="a" * 64,
        known_template_hashes=("a" * 64,),
    )
    return replace(whole, **changes)


def livecodebench(n_samples=175, release="v6 increment", **changes):
    """The 31B on LiveCodeBench v6: 80.0 published, 1 x 175."""
    whole = aime(
        benchmark="livecodebench_v6",
        metric="pass@1",
        release=release,
        n_samples_full=n_samples,
        estimate=estimate(
            0.80, 0.735, 0.852, n_samples=n_samples, n_repeats=1, n_graded=n_samples, se_fixed=None
        ),
    )
    return replace(whole, **changes)
