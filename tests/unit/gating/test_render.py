from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from g4eval.gating.decision import decide_once
from g4eval.gating.policy import GatePolicy
from g4eval.gating.render import render_junit, render_markdown, render_text
from tests.unit.gating.arms import arm, drawn, pair

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def record_of(base=0.8, candidate=0.8, **rules):
    return decide_once(
        *pair(base, candidate), GatePolicy.model_validate({"margin_pt": 8, **rules}), now=NOW
    ).record


def test_the_rules_come_first_and_defaults_are_said():
    lines = render_text(record_of(), was_stored=False).splitlines()
    assert lines[0].startswith("margin 8 points, tolerated 0, alpha 0.05 for PASS and 0.05")
    assert lines[1] == (
        "not in a policy, so by default: ok_pt 0.0, alpha_pass 0.05, alpha_fail 0.05, "
        "design gst, guardrail_alpha 0.01"
    )


def test_the_verdict_says_what_it_means_what_was_not_run_and_that_it_is_uncalibrated():
    text = render_text(record_of(), was_stored=False)
    assert "PASS (exit code 0)" in text
    assert "at most a 5% chance of this verdict had the true loss on these samples been 8" in text
    assert "not run: L2 drift" in text
    assert "uncalibrated: no A/A run" in text
    assert "decided on" not in text


def test_a_stored_verdict_says_when_it_was_decided():
    text = render_text(record_of(), was_stored=True)
    assert "decided on 2026-01-02T03:04:00+00:00" in text


def test_an_anytime_verdict_shows_its_confidence_sequence():
    text = render_text(record_of(design="anytime"), was_stored=False)
    assert "confidence sequence, valid at every look" in text
    assert "log e for PASS" in text


def test_a_difference_without_variance_has_a_statistic_and_an_interval_all_the_same():
    base = arm({"demo": ["C" * 8] * 30})
    candidate = arm({"demo": ["I" * 8] * 30}, seed=1)
    found = decide_once(base, candidate, GatePolicy(), now=NOW).record
    assert found.verdict == "FAIL"
    # The first of eight looks: 30 pairs, all lost. Tango at 0: 30 / sqrt(30).
    assert "for FAIL 5.48" in render_text(found, was_stored=False)
    assert found.tasks["demo"].interval_fixed_pt == pytest.approx((-100, -77.3), abs=0.1)  # Tango's


def test_markdown_has_a_table_and_the_reasons():
    text = render_markdown(record_of(candidate=0.5))
    assert text.startswith("## ❌ g4eval gate: FAIL\n")
    assert "| task | samples |" in text
    assert "larger than the margin of 8" in text


def test_markdown_of_an_invalid_comparison_has_no_table():
    base, candidate = pair(0.8, 0.8, thinking="off")
    text = render_markdown(decide_once(base, candidate, GatePolicy(), now=NOW).record)
    assert text.startswith("## ⛔ g4eval gate: INVALID\n")
    assert "thinking: baseline 'on', candidate 'off'" in text
    assert "| task |" not in text


@pytest.mark.parametrize(
    ("candidate", "rules", "counts"),
    [
        (0.8, {}, {"failures": "0", "errors": "0", "skipped": "1"}),
        (0.5, {}, {"failures": "2", "errors": "0", "skipped": "1"}),
        (0.8, {"margin_pt": 1}, {"failures": "0", "errors": "0", "skipped": "2"}),
        (
            0.8,
            {"margin_pt": 1, "on_inconclusive": "fail"},
            {"failures": "1", "errors": "0", "skipped": "1"},
        ),
    ],
)
def test_junit_counts_follow_the_verdict(candidate, rules, counts):
    suite = ET.fromstring(render_junit(record_of(candidate=candidate, **rules)).encode())
    assert {key: suite.get(key) for key in counts} == counts
    names = [case.get("name") for case in suite]
    assert names[:3] == ["verdict", "L0 static", "L1 canary"]


def test_junit_of_an_invalid_comparison_is_an_error_and_escapes_values():
    base, candidate = pair(0.8, 0.8, chat_template_hash="<&>")
    found = decide_once(base, candidate, GatePolicy(), now=NOW).record
    suite = ET.fromstring(render_junit(found).encode())
    error = suite.find("testcase/error")
    assert error is not None
    assert "candidate '<&>'" in str(error.get("message"))


def test_a_guardrail_that_proves_little_is_said():
    base = arm({"demo": drawn(0.8, n=30)})
    candidate = arm({"demo": drawn(0.7, n=30, seed=8)}, seed=1)
    found = decide_once(base, candidate, GatePolicy(margin_pt=8), now=NOW).record
    loss = found.tasks["demo"].cannot_exclude_loss_pt
    text = render_text(found, was_stored=False)
    assert f"demo: a loss of {loss:.1f} points is not excluded" in text


def test_unknown_facts_are_listed():
    base, candidate = pair(0.8, 0.8, kv_cache_dtype="unknown")
    base = replace(base, facts={**base.facts, "kv_cache_dtype": "unknown"})
    text = render_text(decide_once(base, candidate, GatePolicy(), now=NOW).record, was_stored=False)
    assert "(unknown in both: kv_cache_dtype)" in text


HOSTILE = "<img src=x onerror=alert(1)>![x](http://e.example/x)|\x1b[2J"


def test_a_summary_shows_names_and_runs_none_of_them():
    base = replace(arm({"demo": drawn(0.8)}), run_id="b`a`se<script>\n# heading")
    candidate = arm({"demo": drawn(0.8, seed=3)}, seed=1, run_id="c", model=HOSTILE, dtype="x")
    text = render_markdown(decide_once(base, candidate, GatePolicy(), now=NOW).record)
    assert "<img" not in text
    assert "![x]" not in text
    assert "\x1b" not in text
    assert "`` b`a`se<script> # heading ``" in text
    assert "\n# heading" not in text


def test_junit_is_xml_whatever_a_server_named_its_model():
    base, candidate = pair(0.8, 0.8)
    tasks = {"demo\x1b\x00\ud800": candidate.tasks["demo"]}
    record = decide_once(base, replace(candidate, tasks=tasks), GatePolicy(), now=NOW).record
    assert record.verdict == "INVALID"
    shown = ET.fromstring(render_junit(record))
    assert "\\u001b\\u0000" in "".join(e.get("message", "") for e in shown.iter()) or "x1b" in str(
        [e.attrib for e in shown.iter()]
    )
