import filecmp
import json
import re
from base64 import b64encode
from dataclasses import replace

import pytest

from g4eval.errors import StoreError, UsageError
from g4eval.report import site
from g4eval.report.site import ReportOptions, build_report, content_security_policy, run_file
from g4eval.report.views import RepeatTexts, SampleTexts
from g4eval.store.schema import pack_text
from tests.unit.report.synthetic import run_view, three_runs
from tests.unit.report.verdicts import verdict_record

SECRET = "the question that must not be seen"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of three runs."""
    out = tmp_path_factory.mktemp("report")
    build_report(three_runs(), out, ReportOptions())
    return out


def pages(folder):
    return sorted(folder.glob("*.html"))


def gated_run():
    """A run of GPQA whose texts all hold the secret."""
    run = run_view("gated", shares={"gpqa_diamond": 0.5}, limit=3)

    def read_texts(task_id):
        for sample in run.tasks[0].samples:
            yield SampleTexts(
                sample_id=sample.sample_id,
                target=SECRET,
                repeats=(
                    RepeatTexts(
                        repeat=0,
                        prompt=pack_text(json.dumps([{"role": "user", "content": SECRET}])),
                        text=pack_text(SECRET),
                        reasoning=pack_text(SECRET),
                        extraction=SECRET,
                        lenient_extraction=SECRET,
                        notes=(SECRET,),
                    ),
                ),
            )

    return replace(run, read_texts=read_texts)


def every_byte(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_every_page_carries_the_policy_and_no_script_style_or_handler_of_its_own(report):
    assert len(pages(report)) == 8
    for page in pages(report):
        text = page.read_text("utf-8")
        assert content_security_policy().split(";")[1].strip().replace("'", "&#39;") in text
        assert not re.search(r"<script(?![^>]* src=)", text), page.name
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), page.name


def test_every_link_and_asset_of_a_page_is_there(report):
    for page in pages(report):
        for target in re.findall(r'(?:href|src|data-index)="([^"#]+)', page.read_text("utf-8")):
            assert not target.startswith(("http:", "https:", "//")), target
            assert (report / target).is_file(), f"{page.name}: {target}"


def test_every_anchor_that_is_linked_is_there(report):
    ids = {
        page.name: set(re.findall(r'id="([^"]+)"', page.read_text("utf-8")))
        for page in pages(report)
    }
    for page in pages(report):
        for file, anchor in re.findall(r'href="([^"#]*)#([^"]+)"', page.read_text("utf-8")):
            assert anchor in ids[file or page.name], f"{page.name}: {file}#{anchor}"


def test_the_same_runs_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        build_report(
            [run_view(limit=3), run_view("other", limit=3)], tmp_path / name, ReportOptions()
        )
    names = [str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file()]
    same, differ, missing = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)
    assert (len(same), differ, missing) == (len(names), [], [])


def test_gated_texts_stay_out_of_every_file_unless_asked_for(tmp_path):
    build_report([gated_run()], tmp_path / "shut", ReportOptions())
    build_report([gated_run()], tmp_path / "open", ReportOptions(include_gated=True))
    shard = "data/gated/gpqa_diamond-0.js"
    assert SECRET.encode() not in every_byte(tmp_path / "shut")
    closed = (tmp_path / "shut" / shard).read_text()
    assert not re.search(r'"(text|reasoning|extraction|lenient|notes)"', closed)
    assert SECRET in (tmp_path / "open" / shard).read_text()
    assert '"gated":true,"hidden":true' in (tmp_path / "shut/data/gated/index.js").read_text()
    assert '"gated":true,"hidden":false' in (tmp_path / "open/data/gated/index.js").read_text()
    assert "keep it to yourself" in (tmp_path / "open/run-gated.html").read_text("utf-8")
    assert "keep it to yourself" not in (tmp_path / "shut/run-gated.html").read_text("utf-8")


def test_a_hostile_name_of_a_model_is_only_text(tmp_path):
    name = "<img src=x onerror=alert(1)>\"'"
    run = run_view(limit=2, shares={"aime26": 0.5})
    build_report([replace(run, model=name, summary=name, command=name)], tmp_path, ReportOptions())
    for page in pages(tmp_path):
        assert "<img src=x" not in page.read_text("utf-8")
    assert "&lt;img src=x" in (tmp_path / run_file(run)).read_text("utf-8")


def test_a_folder_that_is_not_a_report_is_not_written_into(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="isn't a report"):
        build_report([run_view(limit=1)], tmp_path, ReportOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_report_may_be_written_again_in_its_own_folder(tmp_path):
    for limit in (1, 2):
        build_report([run_view(limit=limit, shares={"aime26": 0.5})], tmp_path, ReportOptions())
    index = (tmp_path / "data/gemma-4-31b-vllm-3fa2c1d0/index.js").read_text()
    assert '"ids":["aime2026-0","aime2026-1"]' in index


def test_only_a_live_report_looks_for_newer_pages(tmp_path):
    run = run_view(limit=2, shares={"aime26": 0.5})
    build_report([run], tmp_path / "still", ReportOptions())
    build_report([replace(run, is_finished=False)], tmp_path / "live", ReportOptions(is_live=True))
    assert "live.js" not in (tmp_path / "still/index.html").read_text("utf-8")
    assert "static/live.js" in (tmp_path / "live/index.html").read_text("utf-8")
    state = (tmp_path / "live/data/live.js").read_text()
    assert '"done":8,"planned":8,"finished":false' in state


def test_a_fake_engine_is_named_on_every_page_with_its_numbers(tmp_path):
    run = run_view(engine="fake", limit=2, shares={"aime26": 0.5})
    build_report([run], tmp_path, ReportOptions())
    for name in ("index.html", run_file(run)):
        assert "invented" in (tmp_path / name).read_text("utf-8")


def test_a_run_without_a_single_grade_is_still_a_report(tmp_path):
    run = run_view(limit=2, shares={"aime26": 0.5})
    task = run.tasks[0]
    nothing = replace(
        task.measurement.estimate,
        value=float("nan"),
        interval=None,
        interval_super=None,
        n_samples=0,
        n_graded=0,
        n_truncated=0,
        n_no_answer=0,
        if_truncated_right=float("nan"),
    )
    empty = replace(
        task,
        samples=tuple(replace(s, repeats=()) for s in task.samples),
        groups=(),
        measurement=replace(task.measurement, estimate=nothing),
    )
    whole = replace(run, tasks=(empty,), read_texts=lambda task_id: iter(()))
    build_report([whole, replace(whole, run_id="other")], tmp_path, ReportOptions())
    assert "nan" not in (tmp_path / "index.html").read_text("utf-8").lower()


def test_a_report_without_gated_texts_leaves_none_of_an_earlier_one(tmp_path):
    out = tmp_path / "report"
    build_report([gated_run()], out, ReportOptions(include_gated=True))
    with_texts = pack_text(SECRET)
    assert b64encode(with_texts) in every_byte(out)
    build_report([gated_run()], out, ReportOptions())
    assert SECRET.encode() not in every_byte(out)
    assert b64encode(with_texts) not in every_byte(out)


def test_a_report_of_other_runs_leaves_nothing_of_the_first(tmp_path):
    out = tmp_path / "report"
    build_report([gated_run(), *three_runs()[:1]], out, ReportOptions(include_gated=True))
    other = three_runs()[2]
    build_report([other], out, ReportOptions(include_gated=True))
    assert b64encode(pack_text(SECRET)) not in every_byte(out)
    fresh = tmp_path / "fresh"
    build_report([other], fresh, ReportOptions(include_gated=True))
    assert files_of(out) == files_of(fresh)


def test_gated_texts_go_before_anything_new_is_written(tmp_path, monkeypatch):
    """Killed in the middle, a report without --include-gated has removed what was gated."""
    out = tmp_path / "report"
    build_report([gated_run()], out, ReportOptions(include_gated=True))
    monkeypatch.setattr(site, "_write_all", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_report([gated_run()], out, ReportOptions())
    assert b64encode(pack_text(SECRET)) not in every_byte(out)


def test_a_report_of_an_older_g4eval_may_hold_gated_texts(tmp_path):
    out = tmp_path / "report"
    build_report([gated_run()], out, ReportOptions(include_gated=True))
    (out / ".g4eval-report").write_text("")
    build_report([three_runs()[0]], out, ReportOptions())
    assert b64encode(pack_text(SECRET)) not in every_byte(out)


def test_other_peoples_files_in_the_folder_stay(tmp_path):
    out = tmp_path / "report"
    build_report([three_runs()[0]], out, ReportOptions())
    (out / "notes.txt").write_text("mine")
    build_report([three_runs()[1]], out, ReportOptions())
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("names", [("same", "same"), ("a/b", "a-b"), ("Run", "run")])
def test_runs_whose_ids_make_one_file_name_have_pages_of_their_own(tmp_path, names):
    out = tmp_path / "report"
    runs = [replace(run, run_id=name) for run, name in zip(three_runs(), names, strict=False)]
    build_report(runs, out, ReportOptions())
    pages_of_runs = sorted(out.glob("run-*.html"))
    assert len(pages_of_runs) == 2
    texts = [page.read_text("utf-8") for page in pages_of_runs]
    shown = {re.findall(r"<h1>(\S+)", text)[0] for text in texts}
    assert shown == {run.model.rpartition("/")[2] for run in runs}
    indexes = {re.findall(r'data-index="([^"]+)"', text)[0] for text in texts}
    assert len(indexes) == 2
    assert all((out / index).is_file() for index in indexes)
    assert len(list(out.glob("compare-*.html"))) == 1


def test_a_report_onto_a_file_is_refused(tmp_path):
    out = tmp_path / "report"
    out.write_text("mine")
    with pytest.raises(UsageError, match="is not a folder"):
        build_report([three_runs()[0]], out, ReportOptions())
    assert out.read_text() == "mine"
    with pytest.raises(StoreError, match="the report can't be written"):
        build_report([three_runs()[0]], out / "below", ReportOptions())


@pytest.mark.parametrize("seconds", [1e15, 31_690_708 * 31_556_952, 1e300, float("inf"), -1e15])
def test_a_clock_out_of_range_is_no_end_of_a_report(tmp_path, seconds):
    run = replace(three_runs()[0], updated_at=seconds)
    build_report([run], tmp_path / "report", ReportOptions())
    page = (tmp_path / "report" / run_file(run)).read_text("utf-8")
    assert "a time out of range" in page


def files_of(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "INVALID")


def gate_colours(css: str, verdict: str, scheme: int) -> tuple[str, ...]:
    """The colours of a verdict's box and heading in light (0) or dark (1), and the line's style."""
    tokens = dict(re.findall(r"--(\w[\w-]*): light-dark\(([^)]*)\)", css))
    found = []
    for rule in (f".gate.{verdict} {{", f".gate.{verdict} h2 {{"):
        (body,) = re.findall(re.escape(rule) + r"([^}]*)\}", css)
        found += [
            tokens[name].split(", ")[scheme] for name in re.findall(r"var\(--([\w-]+)\)", body)
        ]
        found += re.findall(r"border-left-style: (\w+)", body)
    return tuple(found)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_page_of_two_runs_carries_its_verdict_as_a_class(verdict, tmp_path):
    base, candidate = (run_view(n, shares={"aime26": 0.5}, limit=2) for n in ("base", "cand"))
    judged = replace(candidate, gate_verdicts=(verdict_record(verdict, "base"),))
    build_report([base, judged], tmp_path / "out", ReportOptions())
    page = (tmp_path / "out" / "compare-base--cand.html").read_text("utf-8")
    assert re.findall(r'<section class="gate (\w+)"', page) == [verdict.lower()]
    assert f"The gate says {verdict}</h2>" in page


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_no_two_verdicts_have_one_colour(scheme, report):
    css = (report / "static" / "report.css").read_text("utf-8")
    colours = {verdict: gate_colours(css, verdict.lower(), scheme) for verdict in VERDICTS}
    assert all(len(found) >= 2 for found in colours.values()), colours
    for place in (0, -1):  # the line beside it, and its heading
        assert len({found[place] for found in colours.values()}) == len(VERDICTS), colours
