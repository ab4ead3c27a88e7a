"""The command line: commands with flags and values of every kind, none of which may be our bug."""

import io
import os
import sys
from pathlib import Path

from hypothesis import strategies as st

from g4eval.cli import entry
from g4eval.errors import UsageError
from tests.fuzz.border import HOSTILE, Border

# Commands that start no process, ask nobody and load no model, whatever they are given.
FLAGS = {
    "show": ["--json", "--include-gated", "--runs-dir", "--data-dir", "--tasks-dir"],
    "export": ["--to", "--out", "--include-gated", "--runs-dir"],
    "compare": ["--samples", "--runs-dir", "--json"],
    "report": ["--out", "--include-gated", "--runs-dir"],
    "tasks": ["--tasks-dir", "--json"],
    "published": ["--model", "--task", "--source", "--conflicts", "--protocols", "--json"],
    "grade": ["--diff", "--json", "--runs-dir", "--data-dir"],
    "gate-plan": ["--policy", "--runs-dir", "--tokens-per-second", "--json"],
    "gate": ["--policy", "--runs-dir", "--uncalibrated", "--summary", "--junit", "--json"],
    "drift": ["--runs-dir", "--json"],
    "import": ["--model", "--set", "--run-id", "--runs-dir", "--data-dir", "--json"],
    "logprobs": ["--model", "--engine", "--set"],
    "run": ["--config", "--from", "--set", "--seed", "--run-id", "--runs-dir", "--reuse"],
    "nothing": ["--json"],
}
WORDS = [
    "demo_math", "a", "in.jsonl", "policy.yaml", ".", "..", "/", "/dev/null", "-", "--",
    "jsonl", "parquet", "gate", "fake", "0", "1", "-1", "1e400", "nan", "engine.accuracy=2",
    "sampling.temperature=x", "sampling.=", "=", "a=b=c", "demo_math.repeats=999999999999",
    "engine.x: [", "sampling.stop=[[[", "x" * 300, "y/" * 2100, "\udcff", "\u202e\x1b[2J", "",
]  # fmt: skip
FILES = {
    "in.jsonl": b'{"sample_id": "demo_math-1", "text": "1"}\n{"id": 1, "token_ids": [1, 300]}\n',
    "policy.yaml": b"margin_pt: 5\nlooks: [1\n",
    "config.yaml": b"tasks: [demo_math]\nset: {a: &a [*a]}\n",
}


def read_command(arguments: list[str], folder: Path) -> None:
    """Call one command as the entry point does; an exit code is an answer, unless it is our bug."""
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    sys.argv = ["g4eval", *(str(folder / w) if w in FILES else w for w in arguments)]
    streams = sys.stdout, sys.stderr
    said = io.StringIO()
    sys.stderr = said
    try:
        code = entry._run()
    finally:
        sys.stdout, sys.stderr = streams
    assert code in (0, 1, 2, 3, 4, 5), said.getvalue()[-2000:]
    if code:
        raise UsageError(f"exit code {code}")


def _commands() -> st.SearchStrategy[list[str]]:
    words = st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from([v for v in HOSTILE if isinstance(v, str)]),
        st.text(max_size=20),
    ).filter(_can_be_handed_over)

    def of(name: str) -> st.SearchStrategy[list[str]]:
        flags = st.tuples(st.sampled_from([*FLAGS[name], "--no-such"]), words)
        parts = st.lists(st.one_of(words.map(lambda w: [w]), flags.map(list)), max_size=5)
        # A run without tasks of its own ends before an engine is made.
        return parts.map(lambda p: [name, *(w for part in p for w in part)])

    return st.sampled_from(sorted(FLAGS)).flatmap(of).filter(_harmless)


def _can_be_handed_over(word: str) -> bool:
    """Whether the system gives a process such an argument."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def _harmless(arguments: list[str]) -> bool:
    """Leave out what would do real work or leave the folder: those have tests of their own."""
    if arguments[0] in ("run", "import", "grade", "report") and "demo_math" in arguments:
        return False
    return not any("watch" in word or word in ("/", "..") for word in arguments[1:])


BORDERS = [Border(name="command line", inputs=_commands(), read=read_command)]
