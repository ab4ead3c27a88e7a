"""A storm of `kill -9`: sessions of every kind killed at random moments, then the same command.

    python -m tests.integration.kill_storm --kills 1000 --seed 7 [--folder DIR]

A third of the kills comes within the first 200 ms. After each: nothing stored is gone, nothing
stored is asked for again. After a few, the same command must end as one that was never killed.
"""

import argparse
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import cli_environment
from tests.integration.test_crash_safety import make_family

ROWS, REPEATS = 40, 2
SESSION_SECONDS = 240.0
MARGIN = "margin_pt: 20\nlooks: 2\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One command to be killed."""

    name: str
    arguments: tuple[str, ...]
    run_id: str | None = None  # the run that it writes; None: none
    clean: Callable[[Path], None] = lambda _: None  # takes away what a finished one left
    exit_codes: frozenset[int] = frozenset({0})


@dataclass(slots=True)
class Found:
    """What came of a storm."""

    kills: Counter[str] = field(default_factory=Counter)
    early: int = 0  # kills within 200 ms
    too_late: int = 0  # the command was over before its kill
    finished: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Storm:
    """A folder in which commands are killed and finished."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.found = Found()
        self.usual: dict[str, float] = {}  # seconds of a session that nobody kills
        make_family(root, rows=ROWS, repeats=REPEATS)
        (root / "gate.yaml").write_text(MARGIN)
        rows = [
            {"sample_id": f"s-{i}", "repeat": r, "text": f"\\boxed{{{i + 1}}}"}
            for i in range(ROWS)
            for r in range(REPEATS)
        ]
        (root / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for run_id, seed_ in (("base", 0), ("cand", 1)):
            self.run(("run", "slow_math", *engine(run_id, 0), "--seed", str(seed_)))

    def start(self, arguments: tuple[str, ...]) -> "subprocess.Popen[str]":
        """Start a command here."""
        return subprocess.Popen(
            [sys.executable, "-m", "g4eval", *arguments], cwd=self.root, text=True,
            env=cli_environment() | {"G4EVAL_RUNS_DIR": "runs"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, arguments: tuple[str, ...]) -> tuple[int, str]:
        """Run a command to its end."""
        process = self.start(arguments)
        _, errors = process.communicate(timeout=SESSION_SECONDS)
        return process.returncode, errors

    def stored(self, run_id: str | None) -> set[str]:
        """The keys of the completions that are committed."""
        path = self.root / "runs" / (run_id or "") / "run.sqlite"
        if run_id is None or not path.exists():
            return set()
        with contextlib.closing(sqlite3.connect(path)) as db:
            return {key for (key,) in db.execute("SELECT key FROM completions")}

    def asked(self, run_id: str | None) -> list[str]:
        """The keys that the engine was asked for, in order."""
        path = self.root / f"journal-{run_id}"
        return path.read_text().split() if path.exists() else []

    def kill(self, kind: Kind) -> None:
        """Start a session, kill it, and look at what it left."""
        stored, asked = self.stored(kind.run_id), len(self.asked(kind.run_id))
        early = self.chance.random() < 1 / 3
        pause = self.chance.uniform(0, 0.2 if early else 1.1 * self.usual[kind.name])
        process = self.start(kind.arguments)
        time.sleep(pause)
        if process.poll() is not None:
            self.found.too_late += 1
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.found.kills[kind.name] += 1
        self.found.early += early
        again = stored & set(self.asked(kind.run_id)[asked:])
        if again:
            self.fault(f"{kind.name}: {len(again)} stored requests were sent again")
        lost = stored - self.stored(kind.run_id)
        if lost:
            self.fault(f"{kind.name}: {len(lost)} stored completions are gone")

    def finish(self, kind: Kind) -> None:
        """Run the same command to its end, and compare it with one that nobody killed."""
        stored, asked = self.stored(kind.run_id), len(self.asked(kind.run_id))
        begun = time.monotonic()
        code, errors = self.run(kind.arguments)
        self.usual.setdefault(kind.name, time.monotonic() - begun)
        if code not in kind.exit_codes:
            self.fault(f"{kind.name}: exit code {code}: {errors[-600:]}")
        if stored & set(self.asked(kind.run_id)[asked:]):
            self.fault(f"{kind.name}: the last session sent stored requests again")
        if kind.run_id is not None:
            self.look_at(kind)
        self.found.finished[kind.name] += 1
        kind.clean(self.root)
        with contextlib.suppress(FileNotFoundError):
            (self.root / f"journal-{kind.run_id}").unlink()

    def look_at(self, kind: Kind) -> None:
        """Check that a finished run is whole: each completion once, and graded once."""
        path = self.root / "runs" / str(kind.run_id) / "run.sqlite"
        if not path.exists():
            self.fault(f"{kind.name}: there is no run")
            return
        with contextlib.closing(sqlite3.connect(path)) as db:
            counts = db.execute(
                "SELECT (SELECT COUNT(*) FROM completions), (SELECT COUNT(DISTINCT key) FROM "
                "completions), (SELECT COUNT(*) FROM grades), (SELECT COUNT(DISTINCT key) FROM "
                "grades)"
            ).fetchone()
            whole = db.execute("PRAGMA integrity_check").fetchone()
        if len(set(counts)) != 1 or whole != ("ok",):
            self.fault(f"{kind.name}: completions and grades {counts}, integrity {whole}")
        if kind.name != "driven gate" and counts[0] != ROWS * REPEATS:
            self.fault(f"{kind.name}: {counts[0]} completions")

    def fault(self, text: str) -> None:
        """Note what must not be, and keep the folder as it is beside."""
        self.found.faults.append(text)


def engine(run_id: str, delay: float) -> tuple[str, ...]:
    """Flags of an engine that writes down what it is asked for."""
    return (
        *("--engine", "fake", "--model", "m", "--tasks-dir", "families", "--run-id", run_id),
        *("--set", "engine.accuracy=0.6", "--set", f"engine.delay_seconds={delay}"),
        *("--set", "engine.concurrency=10", "--set", f"engine.journal=journal-{run_id}"),
    )


def without_run(run_id: str) -> Callable[[Path], None]:
    """Take a run away, so that the next one is born again."""
    return lambda root: shutil.rmtree(root / "runs" / run_id, ignore_errors=True)


def without_verdict(root: Path) -> None:
    """Leave the candidate undecided."""
    (root / "runs" / "cand" / "verdict.json").unlink(missing_ok=True)


def all_kinds() -> list[Kind]:
    """What is killed: generation and grading, import, report, gate, driven gate, export, grade."""
    gate = ("gate", "base", "--uncalibrated", "--policy", "gate.yaml")
    decided = frozenset({0, 1, 3})
    importing = ("import", "slow_math", "lines.jsonl", "--model", "m", "--tasks-dir", "families")
    return [
        Kind(name="run", arguments=("run", "slow_math", *engine("run", 0.1)), run_id="run",
             clean=without_run("run")),
        Kind(name="grading", arguments=("run", "slow_math", *engine("graded", 0)),
             run_id="graded", clean=without_run("graded")),
        Kind(name="driven gate", run_id="driven", exit_codes=decided,
             arguments=(*gate, *engine("driven", 0.05), "--seed", "9"),
             clean=without_run("driven")),
        Kind(name="import", run_id="imported", clean=without_run("imported"),
             arguments=(*importing, "--run-id", "imported")),
        Kind(name="gate", arguments=(*gate, "cand"), exit_codes=decided, clean=without_verdict),
        Kind(name="report", arguments=("report", "base", "cand", "--out", "pages"),
             clean=lambda root: shutil.rmtree(root / "pages", ignore_errors=True)),
        Kind(name="export", arguments=("export", "base", "--to", "jsonl", "--out", "rows.jsonl")),
        Kind(name="grade", arguments=("grade", "base", "--tasks-dir", "families")),
    ]  # fmt: skip


def storm(root: Path, kills: int, seed: int, more: Mapping[str, Kind] | None = None) -> Found:
    """Kill that many sessions of all kinds in turn; return the counts and what went wrong."""
    weather = Storm(root, seed)
    kinds = [*all_kinds(), *(more or {}).values()]
    for kind in kinds:
        weather.finish(kind)  # one that nobody kills: it says how long a session takes
    while sum(weather.found.kills.values()) < kills:
        for kind in kinds:
            left = kills - sum(weather.found.kills.values())
            for _ in range(min(left, weather.chance.randint(1, 6))):
                weather.kill(kind)
            weather.finish(kind)
            sys.stderr.write(f"{sum(weather.found.kills.values())} kills, {weather.found.faults}\n")
            if not left:
                break
    return weather.found


def main() -> None:
    """Run a storm and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    found = storm(folder, arguments.kills, arguments.seed)
    lines = [
        f"{sum(found.kills.values())} kills {dict(found.kills)}, seed {arguments.seed}",
        f"{found.early} within 200 ms, {found.too_late} after the end",
        f"{sum(found.finished.values())} sessions finished; {time.monotonic() - begun:.0f} s",
        f"faults: {len(found.faults)}",
        *found.faults,
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(found.faults))


if __name__ == "__main__":
    main()
