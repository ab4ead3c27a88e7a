"""The report in a real browser, opened from files, its Content-Security-Policy in force."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from g4eval.report.site import ReportOptions, build_report
from tests.unit.report.synthetic import run_view

pytestmark = pytest.mark.browser

RUN = "run-gemma-4-31b-vllm-3fa2c1d0.html"
PAGES = {
    "leaderboard": "index.html",
    "run": RUN,
    "compare": "compare-gemma-4-31b-vllm-3fa2c1d0--gemma-4-e4b-vllm-99ab01ce.html",
    "published": "published.html",
    "methods": "methods.html",
}
SIZES = {
    "wide": (1440, "light"),
    "tablet": (800, "light"),
    "narrow": (390, "light"),
    "dark": (1440, "dark"),
}
SAMPLE = "#/aime26/aime2026-3/1"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_a_file_without_complaint_and_without_sideways_scrolling(
    opened, report, screenshot, name, size
):
    width, colours = SIZES[size]
    page = opened(width, colours=colours).open(
        report / PAGES[name], SAMPLE if name == "run" else ""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"{name}-{size}")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_accessibility_fault(opened, report, name, colours):
    script = os.environ.get("G4EVAL_AXE")
    if not script:
        pytest.skip("axe-core isn't here: nox -s browser fetches it and sets G4EVAL_AXE")
    page = opened(colours=colours).open(report / PAGES[name], SAMPLE if name == "run" else "")
    if name == "run":
        page.wait_for_selector("#detail .model-text")
    page.evaluate(Path(script).read_text("utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:160] for n in v["nodes"][:5]]) for v in serious] == []


def test_the_policy_is_in_force(opened, report):
    view = opened()
    page = view.open(report / "methods.html")
    outcome = page.evaluate(
        """() => new Promise((resolve) => {
          const blocked = [];
          const note = (event) => blocked.push(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", note);
          try { document.body.innerHTML = "<b>x</b>"; } catch { blocked.push("thrown"); }
          const link = document.createElement("style");
          link.textContent = "body { display: none }";
          document.head.append(link);
          fetch("https://example.org/").catch(() => {});
          const image = new Image();
          image.src = "https://example.org/pixel.png";
          setTimeout(() => resolve([...new Set(blocked)].sort()), 300);
        })"""
    )
    assert outcome == [
        "connect-src",
        "img-src",
        "require-trusted-types-for",
        "style-src-elem",
        "thrown",
    ]
    assert len(view.complaints) >= 4  # the console names each; here they were asked for
    view.complaints.clear()
    view.requests[:] = [url for url in view.requests if "example.org" not in url]


def test_a_click_on_a_heading_sorts_by_it_and_a_second_click_turns_the_order(opened, report):
    page = opened().open(report / "index.html")
    column = "#rows tbody tr:not([hidden]) td[data-label='Score']"
    page.click("#rows .sort:text-is('Score')")
    scores = [float(text) for text in page.locator(column).all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 11
    page.click("#rows .sort:text-is('Score')")
    assert [float(t) for t in page.locator(column).all_inner_texts()] == scores[::-1]
    assert page.get_attribute("#rows th:has-text('Score')", "aria-sort") == "ascending"


def test_what_is_not_known_is_sorted_to_the_end_either_way(opened, report):
    page = opened().open(report / "index.html")
    for _ in range(2):
        page.click("#rows .sort:text-is('Published')")
        texts = page.locator("#rows tbody td[data-label='Published']").all_inner_texts()
        assert texts[-2:] == ["\N{EN DASH}", "\N{EN DASH}"]


def test_filters_leave_the_rows_that_fit_and_say_how_many(opened, report):
    page = opened().open(report / "index.html")
    rows = page.locator("#rows tbody tr:visible")
    page.select_option("[data-filter-key='task']", "aime26")
    assert rows.count() == 3
    assert page.inner_text("[data-count-of='rows']") == "3 of 11 rows"
    page.fill("#find", "E4B")
    assert rows.count() == 1
    page.fill("#find", "")
    page.select_option("[data-filter-key='task']", "")
    assert rows.count() == 11


def test_the_table_can_be_downloaded(opened, report):
    view = opened()
    page = view.open(report / "index.html")
    with page.expect_download() as download:
        page.click("text=Download CSV")
    text = Path(download.value.path()).read_text()
    assert text.startswith("run_id,model,engine,task,")
    assert len(text.splitlines()) == 12
    view.complaints.remove(f"failed {(report / 'leaderboard.csv').as_uri()}")  # it was a download


def test_the_charts_say_their_numbers_to_those_who_cannot_see_them(opened, report):
    page = opened().open(report / "index.html")
    label = page.get_attribute(".panel svg.chart >> nth=0", "aria-label")
    assert label.startswith("AIME 2026. gemma-4-31b-vllm-3fa2c1d0: ")
    assert "95 % interval" in label
    assert page.locator("svg.chart").count() == 4


def test_a_sample_opens_with_its_answer_marked_and_its_reasoning_folded(opened, report):
    page = opened().open(report / RUN)
    page.select_option("select[name=task]", "aime26")
    page.click(".samples a:has-text('aime2026-3')")
    page.wait_for_selector("#detail mark")
    target = page.inner_text("#detail dt:text-is('Target') + dd")
    assert page.inner_text("#detail mark") == target
    reasoning = page.locator("details.block", has_text="Reasoning")
    assert reasoning.get_attribute("open") is None
    assert reasoning.locator(".model-text").count() == 0
    reasoning.locator("summary").click()
    reasoning.locator(".model-text").wait_for()
    assert page.locator("#detail .repeats button").count() == 4


def test_another_try_opens_and_the_address_names_it(opened, report):
    page = opened().open(report / RUN, SAMPLE)
    page.wait_for_selector("#detail mark")
    page.click("#detail .repeats button >> nth=2")
    page.wait_for_selector("#detail .repeats button[aria-pressed='true']:has-text('3')")
    assert page.url.endswith("#/aime26/aime2026-3/2")
    page.go_back()
    page.wait_for_selector("#detail .repeats button[aria-pressed='true']:has-text('2')")


@pytest.mark.parametrize(
    ("control", "value", "fits"),
    [
        ("outcome", "always correct", lambda codes: set(codes) <= set("048c")),
        ("outcome", "never correct", lambda codes: not set(codes) & set("048c")),
        ("cut", True, lambda codes: bool(set(codes) & set("4567cdef"))),
        ("disagree", True, lambda codes: bool(set(codes) & set("89abcdef"))),
    ],
)
def test_the_explorers_filters_agree_with_the_index(opened, report, control, value, fits):
    page = opened().open(report / RUN)
    index = page.evaluate("g4eval.want('index')")
    expected = sum(fits(codes) for task in index["tasks"] for codes in task["codes"])
    if value is True:
        page.check(f"input[name={control}]")
    else:
        page.select_option(f"select[name={control}]", label=value)
    assert 0 < expected < 863
    assert page.inner_text("#filters output") == f"{expected} of 863 samples"


def test_a_group_filter_belongs_to_its_task(opened, report):
    page = opened().open(report / RUN)
    difficulty = page.locator("select[name='group:difficulty']")
    assert not difficulty.is_visible()
    page.select_option("select[name=task]", "livecodebench_v6")
    difficulty.select_option(label="hard")
    assert page.inner_text("#filters output") == "58 of 863 samples"


def test_the_tests_of_a_program_show_input_expected_and_got(opened, report):
    page = opened().open(report / RUN)
    page.select_option("select[name=task]", "livecodebench_v6")
    page.select_option("select[name=outcome]", "incorrect")
    page.click(".samples a >> nth=0")
    page.wait_for_selector("#detail .tests")
    assert page.inner_text("#detail .tests tbody tr >> nth=0").endswith("2 tests accepted")
    last = page.locator("#detail .tests tbody tr").last.locator("td").all_inner_texts()
    assert last[0] == "WA"
    assert [text.strip() for text in last[1:]] == ["4 5 6", "15", "16"]
    assert page.locator("#detail .model-text code").count() == 1


def test_gated_texts_are_not_in_the_page_and_it_says_why(opened, report):
    page = opened().open(report / RUN)
    page.select_option("select[name=task]", "gpqa_diamond")
    page.click(".samples a >> nth=0")
    page.wait_for_selector("#detail .gated")
    assert "--include-gated" in page.inner_text("#detail .gated")
    assert page.locator("#detail .model-text").count() == 0
    assert page.locator("#detail dt:text-is('Target')").count() == 0


def test_dark_mode_is_switched_and_kept(opened, report):
    page = opened().open(report / "methods.html")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.goto((report / "published.html").as_uri())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_everything_can_be_reached_by_keyboard_alone(opened, report):
    page = opened().open(report / RUN)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("select[name=outcome]")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.samples') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail .model-text")
    focused = page.evaluate("document.activeElement.getAttribute('aria-pressed')")
    assert focused == "true"
    first = page.inner_text("#detail h3")
    page.keyboard.press("j")
    page.wait_for_selector(f"#detail h3:not(:text-is('{first}'))")
    page.keyboard.press("k")
    page.wait_for_selector(f"#detail h3:text-is('{first}')")


def test_a_menu_opens_by_keyboard_and_closes_on_escape(opened, report):
    page = opened().open(report / "index.html")
    page.focus(".menu summary >> nth=0")
    page.keyboard.press("Enter")
    assert page.locator(".menu[open] a:visible").count() == 3
    page.keyboard.press("Escape")
    assert page.locator(".menu[open]").count() == 0


def test_on_a_phone_the_list_and_the_sample_take_turns(opened, report):
    page = opened(390).open(report / RUN)
    page.click(".samples a >> nth=0")
    page.wait_for_selector("#detail .model-text")
    assert not page.is_visible("#list")
    page.click("#detail .back")
    page.wait_for_selector("#list", state="visible")
    assert page.locator("#detail *").count() == 0


def test_flips_lead_to_the_sample_in_either_run(opened, report):
    page = opened().open(report / PAGES["compare"])
    page.select_option("#flip-tools select[name=side]", "better")
    assert page.inner_text(".flip-row .gain >> nth=0").startswith("+")
    page.select_option("#flip-tools select[name=task]", "aime26")
    page.select_option("#flip-tools select[name=side]", "worse")
    sample_id = page.inner_text(".flip-row strong >> nth=0")
    page.click(".flip-row >> nth=0 >> text=candidate")
    page.wait_for_selector("#detail .model-text, #detail .gated")
    assert page.inner_text("#detail h3") == sample_id
    assert "gemma-4-e4b" in page.url


def test_a_live_page_loads_new_results_and_asks_a_reader_first(opened, tmp_path):
    run = run_view("live", shares={"aime26": 0.5}, limit=4)
    task = run.tasks[0]
    early = replace(run, tasks=(replace(task, samples=task.samples[:2]),), is_finished=False)
    build_report([early], tmp_path, ReportOptions(is_live=True))
    reader, watcher = opened(), opened()
    page = watcher.open(tmp_path / "run-live.html")
    page.wait_for_selector("#live:visible")
    assert page.inner_text("#live-text").startswith("Running: 8 of 16 completions.")
    reading = reader.open(tmp_path / "run-live.html", "#/aime26/aime2026-0/0")
    reading.wait_for_selector("#live:visible")
    build_report([replace(run, is_finished=False)], tmp_path, ReportOptions(is_live=True))
    four = "#filters output:text-is('4 samples')"
    page.wait_for_selector(four)
    reading.wait_for_selector("#live-load:visible")
    assert reading.inner_text("#filters output") == "2 samples"
    reading.click("#live-load")
    reading.wait_for_selector(four)
    for view in (reader, watcher):  # a reload ends what was being loaded
        view.complaints = [c for c in view.complaints if "live.js" not in c]


def test_texts_are_loaded_only_when_a_sample_is_opened(opened, report):
    view = opened()
    page = view.open(report / RUN)
    assert not [url for url in view.requests if "aime26-0.js" in url]
    page.goto((report / RUN).as_uri() + SAMPLE)
    page.wait_for_selector("#detail mark")
    assert len([url for url in view.requests if "aime26-0.js" in url]) == 1


def test_a_link_from_compare_brings_its_sample_into_view(opened, report):
    page = opened(width=1440, height=900).open(next(report.glob("compare-*.html")))
    page.click(".flips .both a >> nth=1")
    page.wait_for_selector("#detail h3")
    name = page.inner_text("#detail h3")
    for selector in ("#detail h3", '.samples a[aria-current="true"]'):
        page.wait_for_function(
            """(selector) => {
              const box = document.querySelector(selector)?.getBoundingClientRect();
              return box && box.top >= 0 && box.bottom <= innerHeight;
            }""",
            arg=selector,
        )
    assert page.inner_text('.samples a[aria-current="true"] .id') == name
