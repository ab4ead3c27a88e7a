"""The signal policy of docs/interrupts.md, on real processes."""

import contextlib
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from g4eval.cli.resume import shown_arguments
from tests.conftest import ROOT
from tests.integration.test_crash_safety import Runs, is_running, make_family, wait_for_children

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS = 30.0  # the policy says 5; a loaded machine may take longer, a hang lasts for ever


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    make_family(tmp_path, rows=100, repeats=4)
    return Runs(tmp_path, delay=0.3)


def generating(runs: Runs) -> "subprocess.Popen[str]":
    """A process that has stored something."""
    process = runs.start("killed")
    deadline = time.monotonic() + 60
    while not runs.stored_keys() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def ended(process: "subprocess.Popen[str]") -> str:
    _, errors = process.communicate(timeout=SECONDS)
    assert "Traceback" not in errors
    assert "leaked" not in errors
    assert process.returncode == 130, errors
    assert errors.count("to continue: g4eval run slow_math") == 1, errors
    return errors


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_ends_a_run_cleanly_and_says_how_to_continue(
    runs: Runs, number: signal.Signals
) -> None:
    process = generating(runs)
    children = wait_for_children(process.pid)
    process.send_signal(number)
    ended(process)
    stored = runs.stored_keys()
    assert stored
    assert runs.query("SELECT COUNT(*) FROM sessions") == [(1,)], "the session was not closed"
    deadline = time.monotonic() + SECONDS
    while any(is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if is_running(pid)]
    runs.delay = 0
    runs.finish("killed")
    asked = runs.journal.read_text().split()
    assert all(asked.count(str(key)) == 1 for key in stored), "asked again for what was stored"


@pytest.mark.parametrize("gap", [0.0, 0.002, 0.01])
@pytest.mark.parametrize(("first", "second"), [SIGNALS, SIGNALS[::-1]])
def test_a_second_signal_ends_it_at_once(
    runs: Runs, first: signal.Signals, second: signal.Signals, gap: float
) -> None:
    process = generating(runs)
    process.send_signal(first)
    time.sleep(gap)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(second)
    ended(process)


def test_signals_at_random_moments_never_end_in_a_traceback(runs: Runs) -> None:
    chance = random.Random(5)
    for _ in range(8):
        process = runs.start("killed")
        time.sleep(chance.uniform(0.3, 2))
        process.send_signal(chance.choice(SIGNALS))
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.01))
            process.send_signal(chance.choice(SIGNALS))
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode in (0, 130), errors
        assert "Traceback" not in errors


def test_what_does_not_end_in_time_is_ended(tmp_path: Path) -> None:
    script = (
        "import asyncio, time\n"
        "from g4eval import interrupts\n"
        "interrupts.GRACE_SECONDS = 0.3\n"
        "interrupts.install()\n"
        "async def hang():\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(600)\n"
        "interrupts.run(hang())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=SECONDS) == 130
    process.stdout.close()


def test_a_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    script = (
        "import os, signal\n"
        "from g4eval import interrupts\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "interrupts.install()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('here')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert found.stdout == "here\n"


def test_every_coroutine_is_run_where_signals_reach_it() -> None:
    found = [
        path
        for path in (ROOT / "g4eval").rglob("*.py")
        if re.search(r"\basyncio\.(run|Runner)\(", path.read_text()) and path.stem != "interrupts"
    ]
    assert not found


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://user:pw@host:1/v1", "http://…@host:1/v1"),
        ("http://user:p/w#x?y@host/v1", "http://…@host/v1"),
        ("http://host/v1?key=abc", "http://host/v1?…"),
        ("--base-url=https://me:pw@h", "--base-url=https://…@h"),
        ("engine.api_key=sk-1", "engine.api_key=…"),
        ('engine.extra_body={"password": "x"}', "engine.extra_body=…"),
        ("--header=api-key: abc", "--header=api-key: …"),
        ("aime26.repeats=4", "aime26.repeats=4"),
        ("http://host:8000/v1", "http://host:8000/v1"),
    ],
)
def test_the_command_that_continues_is_shown_without_secrets(given: str, shown: str) -> None:
    assert shown_arguments(["run", given]) == ["run", shown]


def test_a_header_of_its_own_argument_is_shown_by_its_name() -> None:
    assert shown_arguments(["run", "--header", "api-key: abc"]) == ["run", "--header", "api-key: …"]


@pytest.mark.parametrize("code", [0, 1, "None", "'text'"])
def test_a_plugin_that_leaves_is_no_success(runs: Runs, code: object) -> None:
    plugin = runs.root / "families" / "slow" / "plugin.py"
    plugin.write_text(f"import sys\n\nsys.exit({code})\n" + plugin.read_text())
    process = runs.start("killed")
    _, errors = process.communicate(timeout=120)
    assert process.returncode not in (0, 130), errors
    assert "error: " in errors
