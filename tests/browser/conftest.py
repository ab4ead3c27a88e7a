"""A real Chromium, and reports opened in it from files.

Playwright drives the Chromium of the system (G4EVAL_CHROMIUM, else /usr/bin/chromium); without
either, these tests are skipped with that reason. Screenshots go to G4EVAL_SCREENSHOTS, if set.
"""

import os
from pathlib import Path

import pytest

from g4eval.report.site import ReportOptions, build_report
from tests.unit.report.synthetic import three_runs

CHROMIUM = Path(os.environ.get("G4EVAL_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}: set G4EVAL_CHROMIUM")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS + sandbox)
        yield chromium
        chromium.close()


class Opened:
    """A page, with everything it asked for and everything it complained about."""

    def __init__(self, page):
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed {request.url}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error {error}"))
        page.on("dialog", self._refuse)
        page.on("console", self._hear)

    def _refuse(self, dialog):
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type} {message.text}")

    def open(self, path, fragment=""):
        """Open a file and wait until what is drawn by scripts is there."""
        self.page.goto(path.resolve().as_uri() + fragment)
        if path.name.startswith("run-"):
            self.page.wait_for_selector("#explorer[data-ready]")
        if path.name.startswith(("index", "compare")):
            self.page.wait_for_selector("svg.chart")
        return self.page


@pytest.fixture
def opened(browser):
    """Open a page of the given size and colours; it must neither complain nor leave its files."""
    views = []

    def make(width=1440, height=900, colours="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=colours, **options
        )
        view = Opened(context.new_page())
        views.append((context, view))
        return view

    yield make
    for context, view in views:
        context.close()
        assert view.complaints == []
        assert [url for url in view.requests if not url.startswith("file:///")] == []


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """A report of three runs."""
    out = tmp_path_factory.mktemp("report")
    build_report(three_runs(), out, ReportOptions())
    return out


@pytest.fixture(scope="session")
def screenshot():
    """Keep a picture of a page, where a folder for pictures is set."""
    folder = os.environ.get("G4EVAL_SCREENSHOTS")

    def take(page, name):
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return take
