"""The border of what goes out: shown safely, and never over what isn't ours to replace."""

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from g4eval.errors import NotReadyError, StoreError
from g4eval.jsonlines import read_json_lines, write_json_lines
from g4eval.output import SafeStream, replacing, visible

HOSTILE = "a\x1b[2Jb\x07c\x9bd\0e\u202ef\u2028g\x7fh\ud800i\rj\u2066k\x08l\U000e0041m"


def test_what_would_steer_a_terminal_is_made_visible() -> None:
    assert visible(HOSTILE) == (
        "a\\u001b[2Jb\\u0007c\\u009bd\\u0000e\\u202ef\\u2028g\\u007fh\\ud800i\\u000dj\\u2066k"
        "\\u0008l\\udb40\\udc41m"
    )


@pytest.mark.parametrize(
    "text", ["two\nlines\twide", "\r\n", "é 漢字 \U0001f468\u200d\U0001f469", ""]
)
def test_what_people_write_stays_as_it_is(text) -> None:
    assert visible(text) == text


def test_json_lines_are_safe_to_show_and_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        write_json_lines(stream, [{"text": HOSTILE}])
    written = path.read_bytes().decode()
    assert visible(written) == written
    assert [row for _, row in read_json_lines(path)] == [{"text": HOSTILE}]


def test_a_stream_of_a_small_alphabet_shows_the_rest_as_escapes() -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    SafeStream(below, "x").write("é\x1b")
    below.flush()
    assert below.buffer.getvalue() == b"\\xe9\\u001b"


def test_a_full_device_is_said_on_stdout_and_dropped_on_stderr() -> None:
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123  a device
        with pytest.raises(NotReadyError, match="No space left"):
            print("x", file=SafeStream(full, "standard output"), flush=True)
        print("x", file=SafeStream(full, "standard error", must_arrive=False), flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_regular_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o640)

    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text(str(1 / 0))
    assert path.read_text() == "old"
    with replacing(path) as draft:
        draft.write_text("new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_written_through_and_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_through_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    with replacing(pipe) as draft:
        draft.write_text("through")
    assert reader.communicate(timeout=60)[0] == b"through"
    assert pipe.is_fifo()


def test_a_device_is_written_through_and_its_being_full_is_said() -> None:
    before = Path("/dev/full").stat().st_rdev
    with pytest.raises(StoreError, match="No space left"), replacing(Path("/dev/full")) as draft:
        draft.write_text("x" * 100)
    assert Path("/dev/full").stat().st_rdev == before


@pytest.mark.parametrize("place", ["missing/out", "folder", "file/out"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / place
    with pytest.raises(StoreError, match="can't be written") as raised, replacing(path) as draft:
        draft.write_text("x")
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("redirect", "code", "said"),
    [
        (">/dev/full", 5, "standard output can't be written: No space left on device"),
        (">&-", 5, "standard output is closed"),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
        ("| head -c 10 >/dev/null", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_a_stream_that_takes_nothing_is_an_error_with_its_reason(redirect, code, said) -> None:
    command = f"set -o pipefail; {sys.executable} -m g4eval published --json {redirect}"
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, said in done.stderr) == (code, True)
    assert "Traceback" not in done.stderr


def test_an_error_shows_hostile_names_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "g4eval", "show", "x", "--runs-dir", "no\x1b]0;run\x07\u202e"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no\\u001b]0;run\\u0007\\u202e" in done.stderr
    assert json.dumps(done.stdout + done.stderr).count("\\u001b") == done.stderr.count("\\u001b")


@pytest.mark.parametrize("command", ["show x", "run demo_math --engine fake --model m", "report x"])
@pytest.mark.parametrize("megabytes", [150, 200, 250])
def test_too_little_address_space_is_said_before_anything_is_loaded(command, megabytes) -> None:
    limited = f"ulimit -v {megabytes << 10}; {sys.executable} -m g4eval {command}"
    done = subprocess.run(
        ["bash", "-c", limited], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 5, done.stderr
    assert f"the address space is limited to {megabytes} MiB" in done.stderr
    assert "ulimit -v" in done.stderr


@pytest.mark.parametrize("command", ["doctor", "tasks", "show x", "published"])
def test_a_working_directory_that_was_deleted_is_no_bug(tmp_path: Path, command: str) -> None:
    there = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m g4eval {command}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["bash", "-c", there], cwd=tmp_path, env=environment, check=False, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 2, 5), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "x" * 300],
        ["show", "d/" * 2100],
        ["export", "x" * 5000, "--to", "jsonl"],
        ["report", "x", "--out", "y" * 300],
        ["compare", "a" * 300, "b" * 5000],
        ["import", "demo_math", "f" * 300, "--model", "m"],
        ["run", "demo_math", "--engine", "fake", "--model", "m", "--run-id", "r" * 300],
        ["run", "demo_math", "--engine", "fake", "--model", "m" * 5000],
        ["run", "demo_math", "--engine", "fake", "--model", "m", "--runs-dir", "d/" * 2100],
        ["run", "demo_math", "--engine", "fake", "--model", "m", "--log-file", "l" * 300],
        ["run", "demo_math", "--engine", "fake", "--model", "m", "--data-dir", "l" * 5000],
        ["run", "demo_math", "--config", "c" * 300],
        ["run", "--from", "c" * 5000],
        ["tasks", "--tasks-dir", "t" * 300],
        ["gate", "a" * 300, "b", "--policy", "p" * 300],
        ["logprobs", "f" * 300, "--model", "m", "--engine", "fake"],
        ["judge", "j" * 5000],
        ["show", "nul\0byte"],
    ],
)
def test_names_longer_than_a_file_system_takes_are_the_users_errors(quick_cli, arguments) -> None:
    done = quick_cli(*arguments)
    assert done.returncode in (0, 2, 5), done.stderr[-600:]
    assert "a bug in g4eval" not in done.stderr


def test_what_a_model_wrote_is_shown_everywhere_and_obeyed_nowhere(quick_cli, tmp_path) -> None:
    row = {"sample_id": "demo_math-1", "text": f"{HOSTILE} \\boxed{{33}}", "reasoning": HOSTILE}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    made = quick_cli("import", "demo_math", "in.jsonl", "--model", HOSTILE.replace("\0", ""),
                     "--run-id", "r")  # fmt: skip
    assert made.returncode in (0, 2), made.stderr
    if made.returncode:  # a name that UTF-8 can't hold may be refused, as what it is
        made = quick_cli("import", "demo_math", "in.jsonl", "--model", "m\x1b[31m\u202e",
                         "--run-id", "r")  # fmt: skip
        assert made.returncode == 0, made.stderr
    for command in (
        ["show", "r"],
        ["show", "r", "--json"],
        ["show", "r", "demo_math-1"],
        ["show", "r", "demo_math-1", "--json"],
        ["export", "r", "--to", "jsonl"],
        ["export", "r", "--to", "gate"],
        ["grade", "r", "--diff"],
        ["report", "r", "--out", "report"],
    ):
        done = quick_cli(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert visible(done.stdout) == done.stdout, command
        assert visible(done.stderr) == done.stderr, command
    exported = json.loads(quick_cli("export", "r", "--to", "jsonl").stdout)
    assert exported["text"].startswith(HOSTILE)
    assert quick_cli("export", "r", "--to", "jsonl", "--out", "out.jsonl").returncode == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["reasoning"] == HOSTILE
