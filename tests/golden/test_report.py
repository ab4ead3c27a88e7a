"""A small fixed report, byte for byte: what its pages and data files hold."""

from dataclasses import replace

import pytest

from g4eval.report.site import ReportOptions, build_report
from tests.golden.golden import check_golden
from tests.unit.report.synthetic import run_view
from tests.unit.report.verdicts import verdict_record

SHARES = {"aime26": 0.7, "livecodebench_v6": 0.6}
FILES = (
    "index.html",
    "run-base.html",
    "compare-base--cand.html",
    "leaderboard.csv",
    "data/leaderboard.js",
    "data/compare-base--cand.js",
    "data/base/index.js",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A baseline and a candidate, three samples a task; the gate has decided on the pair."""
    out = tmp_path_factory.mktemp("golden-report")
    verdict = verdict_record(
        "INCONCLUSIVE",
        "base",
        reasons=["six pairs are not enough"],
        meaning="It is no sign of safety.",
        decided_at="2026-11-24T12:00:00+00:00",
    )
    base = run_view("base", shares=SHARES, limit=3)
    candidate = run_view("cand", shares=SHARES, limit=3, cut_share=0.3, quantization="fp8")
    build_report([base, replace(candidate, gate_verdicts=(verdict,))], out, ReportOptions())
    return out


@pytest.mark.parametrize("file", FILES)
def test_a_report_of_two_small_runs(report, file):
    check_golden(f"report/{file}", (report / file).read_text("utf-8"))
