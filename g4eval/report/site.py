"""Write the whole report: a static folder that opens from a file and loads nothing from elsewhere.

Covered: whatever a model wrote can't run. Texts reach a page only as data and are put there as
text nodes; templates escape; the Content-Security-Policy allows this folder's scripts and styles,
no inline script, no eval, no connection, and no HTML from strings (Trusted Types).
Not covered: someone who changes the folder's own files.
"""

import hashlib
import shutil
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from g4eval.bundled import bundled_dir
from g4eval.errors import StoreError, UsageError
from g4eval.report import words
from g4eval.report.comparison import Comparison, compare_runs, comparison_data
from g4eval.report.explorer import hides_texts, write_run_data
from g4eval.report.leaderboard import (
    REFERENCE_NAME,
    Leaderboard,
    build_leaderboard,
    chart_data,
    reference_interval,
    score_table,
    short_model,
)
from g4eval.report.published import (
    arithmetic,
    disagreements,
    published_protocols,
    published_scores,
)
from g4eval.report.shards import script_call
from g4eval.report.views import RunView

# A folder that holds it is ours: it may be written again, and what an earlier report left in it is
# removed. It says whether texts of gated tasks may be there.
MARKER = ".g4eval-report"
WITHOUT_GATED = "no texts of gated tasks\n"

# The one style sheet that Observable Plot puts into each of its drawings, with our class name.
PLOT_STYLE = """:where(.chart) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.chart text),
:where(.chart tspan) {
  white-space: pre;
}"""


def content_security_policy() -> str:
    """Return the policy every page carries."""
    digest = b64encode(hashlib.sha256(PLOT_STYLE.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src 'self' 'sha256-{digest}'",
            "img-src 'self'",
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types g4eval",
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """How a report is written."""

    include_gated: bool = False
    is_live: bool = False  # pages look for newer ones while a run goes on


def build_report(runs: Sequence[RunView], out: Path, options: ReportOptions) -> None:
    """Write every page, data file and asset below `out`.

    Raises UsageError where `out` holds something that isn't a report.
    """
    runs = told_apart(runs)
    try:
        _prepare(out, options)
        written = _write_all(runs, out, options)
        _remove_stale(out, written)
        if not options.include_gated:
            (out / MARKER).write_text(WITHOUT_GATED)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"the report can't be written: {reason}", where=out) from error


def told_apart(runs: Sequence[RunView]) -> tuple[RunView, ...]:
    """Number the runs whose ids make one file name, so that none is written over another."""
    seen: dict[str, int] = {}
    found = []
    for run in runs:
        name = words.slug(run.run_id).lower()  # some file systems know no capitals
        seen[name] = seen.get(name, 0) + 1
        found.append(replace(run, nth=seen[name]))
    return tuple(found)


def _write_all(runs: Sequence[RunView], out: Path, options: ReportOptions) -> set[Path]:
    """Write everything; return the files."""
    leaderboard = build_leaderboard(runs)
    comparisons = [compare_runs(runs[0], other) for other in runs[1:]]
    data = out / "data"
    written = {data / "leaderboard.js", data / "live.js", out / "leaderboard.csv"}
    for run in runs:
        written |= write_run_data(run, out, include_gated=options.include_gated)
    _write(data / "leaderboard.js", script_call("leaderboard", chart_data(leaderboard)))
    for comparison in comparisons:
        path = data / f"compare-{comparison.slug}.js"
        _write(path, script_call("comparison", comparison_data(comparison)))
        written.add(path)
    score_table(leaderboard).to_csv(
        out / "leaderboard.csv",
        index=False,
        float_format="%.6g",
        lineterminator="\n",
        errors="backslashreplace",
    )
    written |= _write_pages(out, leaderboard, comparisons, options)
    _write(data / "live.js", script_call("live", live_state(runs, options)))
    return written


def live_state(runs: Sequence[RunView], options: ReportOptions) -> dict[str, Any]:
    """Return how far the runs are; pages of a live report ask for it again and again."""
    planned = sum(task.n_planned for run in runs for task in run.tasks)
    done = sum(len(s.repeats) for run in runs for task in run.tasks for s in task.samples)
    return {
        "live": options.is_live,
        "done": done,
        "planned": planned,
        "finished": all(run.is_finished for run in runs),
        "version": f"{done}-{max((run.updated_at for run in runs), default=0.0):.3f}",
    }


def _prepare(out: Path, options: ReportOptions) -> None:
    """Make the folder ours, and take gated texts of an earlier report away before all else."""
    if out.exists() and not out.is_dir():
        raise UsageError("is not a folder", where=out, hint="give --out a new folder")
    marker = out / MARKER
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise UsageError(
            "the folder isn't empty and isn't a report",
            where=out,
            hint="give --out a new folder",
        )
    data = out / "data"
    if data.is_symlink():
        raise UsageError("is a link, not a report's folder", where=data, hint="remove the link")
    if marker.is_file() and marker.read_text() != WITHOUT_GATED and not options.include_gated:
        shutil.rmtree(data, ignore_errors=False)
    data.mkdir(parents=True, exist_ok=True)
    if options.include_gated:
        marker.write_text("")  # texts of gated tasks may be here from now on
    elif not marker.is_file():
        marker.write_text(WITHOUT_GATED)
    shutil.copytree(bundled_dir("reports/static"), out / "static", dirs_exist_ok=True)


def _remove_stale(out: Path, written: set[Path]) -> None:
    """Remove what an earlier report wrote and this one didn't; other people's files stay."""
    pages = [*out.glob("run-*.html"), *out.glob("compare-*.html")]
    data = [path for path in (out / "data").rglob("*") if not path.is_dir() or path.is_symlink()]
    for path in {*pages, *data} - written:
        path.unlink()
    for folder in sorted((out / "data").rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _write_pages(
    out: Path,
    leaderboard: Leaderboard,
    comparisons: Sequence[Comparison],
    options: ReportOptions,
) -> set[Path]:
    environment = _environment(leaderboard, comparisons, options)
    written = set()

    def page(file: str, template: str, **context: Any) -> None:
        text = environment.get_template(template).render(file=file, **context)
        _write(out / file, text)
        written.add(out / file)

    page("index.html", "leaderboard.html.j2", board=leaderboard)
    for run in leaderboard.runs:
        rows = [row for row in leaderboard.rows if row.run is run]
        page(run_file(run), "run.html.j2", run=run, rows=rows)
    for comparison in comparisons:
        page(f"compare-{comparison.slug}.html", "compare.html.j2", comparison=comparison)
    protocols = [(p, arithmetic(p)) for p in published_protocols()]
    page(
        "published.html",
        "published.html.j2",
        scores=published_scores(),
        conflicts=disagreements(published_scores()),
        protocols=protocols,
    )
    page("methods.html", "methods.html.j2")
    return written


def run_file(run: RunView) -> str:
    """Return the name of a run's page."""
    return f"run-{run.slug}.html"


def _environment(
    leaderboard: Leaderboard, comparisons: Sequence[Comparison], options: ReportOptions
) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(bundled_dir("reports/templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent,
        points=words.points,
        interval=words.interval,
        points_interval=words.points_interval,
        count=words.count,
        hours=words.hours,
        moment=words.moment,
        slug=words.slug,
        short_model=short_model,
        transposed=lambda columns: list(zip(*columns, strict=True)),
    )
    environment.globals.update(
        policy=content_security_policy(),
        run_links=[_run_link(run) for run in leaderboard.runs],
        comparison_links=[_comparison_link(comparison) for comparison in comparisons],
        options=options,
        run_file=run_file,
        share=words.share,
        hides_texts=hides_texts,
        reference_interval=reference_interval,
        REFERENCE_NAME=REFERENCE_NAME,
    )
    return environment


def _run_link(run: RunView) -> dict[str, str]:
    return {"file": run_file(run), "label": short_model(run.model), "note": run.label}


def _comparison_link(comparison: Comparison) -> dict[str, str]:
    base, candidate = comparison.base, comparison.candidate
    return {
        "file": f"compare-{comparison.slug}.html",
        "label": f"{short_model(candidate.model)} against {short_model(base.model)}",
        "note": f"{candidate.label} against {base.label}",
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
