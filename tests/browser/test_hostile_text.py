"""Whatever a model writes is text on the page, runs nothing and loads nothing."""

import json
import time
from dataclasses import replace

import pytest

from g4eval.records import Outcome
from g4eval.report.site import ReportOptions, build_report, run_file
from g4eval.report.views import JudgedTest, RepeatTexts, RepeatView, SampleTexts, SampleView
from g4eval.store.schema import pack_text
from tests.unit.report.synthetic import run_view

pytestmark = pytest.mark.browser

BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{i} "{f"&lol{i - 1 or str()};" * 10}">' for i in range(1, 10))
    + "]><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><text>&lol9;</text></svg>"
)
HOSTILE = {
    "script": "<script>window.hacked = 1</script><script src='https://example.org/x.js'></script>",
    "textarea": "</textarea></title></style></script><img src=x onerror='window.hacked = 1'>",
    "link": "[click](javascript:window.hacked=1) <a href='javascript:window.hacked=1'>here</a>",
    "frame": "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe><object data=x></object>",
    "template": "{{ 7 * 7 }} ${7 * 7} {% raw %} <%= 7 %> `${window.hacked = 1}`",
    "laughs": BILLION_LAUGHS,
    "entities": "&lt;b&gt; &amp;amp; &#x3c;script&#x3e;",
    "separators": "line\u2028paragraph\u2029next\x85end",
}
BIDI = "user \u202etxt.exe\u202c \u2066a\u2069 \u200f!"


def hostile_run(text, sample_id="s"):
    """A run whose one sample says `text` wherever a model or a file can speak."""
    run = run_view("hostile", shares={"aime26": 0.5}, limit=1)
    sample = SampleView(
        sample_id=sample_id,
        groups={"exam": text[:60], "other": "x"},
        repeats=(RepeatView(repeat=0, outcome=Outcome.INCORRECT, completion_tokens=5),),
    )
    second = replace(sample, sample_id="z", groups={"exam": "I", "other": "y"})
    packed = pack_text(text)
    texts = RepeatTexts(
        repeat=0,
        prompt=pack_text(json.dumps([{"role": text[:40], "content": text}] * 2)),
        text=packed,
        reasoning=packed,
        extraction=text[:200],
        lenient_extraction=text[:100],
        verdict="WA",
        notes=(text[:200],),
        tests=(
            JudgedTest(verdict=text[:20], input=text[:500], expected=text[:500], got=text[:500]),
        ),
    )
    both = [
        SampleTexts(sample_id=name, target=text[:300], repeats=(texts,))
        for name in (sample_id, "z")
    ]
    task = replace(run.tasks[0], samples=(sample, second))
    return replace(run, tasks=(task,), read_texts=lambda task_id: iter(both))


def show(opened, out, run):
    """Open the run's first sample with its reasoning unfolded."""
    build_report([run], out, ReportOptions())
    page = opened().open(out / run_file(run))
    page.click(".samples a >> nth=0")
    page.wait_for_selector("#detail .repeats")
    page.click("summary:has-text('Reasoning')")
    page.wait_for_selector("details:has-text('Reasoning') .model-text")
    return page


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_shown_as_it_is_and_runs_nothing(opened, tmp_path, name):
    text = HOSTILE[name]
    page = show(opened, tmp_path, hostile_run(text))
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    for tag in (
        "script:not([src])",
        "iframe",
        "object",
        "img:not([src='static/icon.svg'])",
        "svg image",
        "textarea",
    ):
        assert page.locator(tag).count() == 0, tag
    assert page.locator("a[href^='javascript']").count() == 0
    if name != "separators":  # those are named instead, as the next tests show
        answer = page.locator("details:has-text('Answer') .model-text").last
        assert answer.evaluate("node => node.textContent") == text


def test_turned_directions_are_named_and_turn_nothing(opened, tmp_path):
    page = show(opened, tmp_path, hostile_run(BIDI))
    box = page.locator("details:has-text('Reasoning') .model-text").last
    assert box.inner_text() == "user U+202Etxt.exeU+202C U+2066aU+2069 U+200F!"
    assert box.locator(".hidden-char >> nth=0").get_attribute("title") == "RIGHT-TO-LEFT OVERRIDE"
    turned = page.evaluate(
        "/[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.querySelector('#detail').textContent)"
    )
    assert not turned  # nor in the extraction, the target, the notes and the tests


def test_nul_bytes_control_characters_and_broken_surrogates_are_named(opened, tmp_path):
    page = show(opened, tmp_path, hostile_run("a\0\0\0b\x1b[31mc\ud800d\udfffe"))
    text = page.locator("details:has-text('Reasoning') .model-text").last.inner_text()
    assert text.startswith("aU+0000\N{MULTIPLICATION SIGN}3bU+001B[31mc")
    assert text.endswith("e")
    assert "\ud800" not in text


def test_a_single_line_of_two_megabytes_stays_readable_and_inside_the_page(opened, tmp_path):
    text = "x" * 2_000_000
    started = time.monotonic()
    page = show(opened, tmp_path, hostile_run(text))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
    box = page.locator("details:has-text('Answer') .model-text").last
    assert box.locator("button").inner_text() == "Show more: 1,800,000 characters left"
    box.locator("button").click()
    assert box.locator("button").inner_text() == "Show more: 1,600,000 characters left"
    assert time.monotonic() - started < 60


def test_many_hidden_characters_do_not_make_many_nodes(opened, tmp_path):
    page = show(opened, tmp_path, hostile_run("a\0b\x01" * 40_000))
    box = page.locator("details:has-text('Reasoning') .model-text").last
    assert box.locator(".hidden-char").count() <= 500
    assert "a\u00a4b\u00a4" in box.evaluate("node => node.textContent")


def test_a_hostile_sample_id_is_a_name_and_can_be_opened(opened, tmp_path):
    name = "a/b#c?d=%2e&e <i>\"'\u00e9"
    page = show(opened, tmp_path, hostile_run("fine", sample_id=name))
    assert page.inner_text("#detail h3") == name
    page.reload()
    page.wait_for_selector("#detail .repeats")
    assert page.inner_text("#detail h3") == name
