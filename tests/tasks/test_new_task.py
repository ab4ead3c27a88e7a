"""docs/new-task.md does what it says: its families are written out and run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from g4eval.cli.entry import main
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import find_tasks

PAGE = Path(__file__).parents[2] / "docs" / "new-task.md"
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def families(tmp_path, monkeypatch):
    """The folder FAMILIES of the page, with every file that it shows."""
    text = PAGE.read_text()
    named = {}
    for match in re.finditer(r"^`([a-z_]+/[a-z_]+\.[a-z]+)`", text, re.MULTILINE):
        block = _BLOCK.search(text, match.end())
        assert block is not None
        named[match[1]] = block[2]
    for name, content in named.items():
        path = tmp_path / "FAMILIES" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.removesuffix("\n") if name.endswith(".jinja") else content)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "FAMILIES"


def _commands():
    return [
        block[2].strip().split()
        for block in _BLOCK.finditer(PAGE.read_text())
        if block[1] == "console"
    ]


@pytest.mark.parametrize("number", range(len(_commands())))
def test_the_commands_of_the_page_run(families, monkeypatch, capsys, number):
    monkeypatch.setattr(sys, "argv", _commands()[number])
    with pytest.raises(SystemExit) as leave:
        main()
    out = capsys.readouterr().out
    assert leave.value.code == 0
    assert sys.argv[2] in out


def test_a_setting_of_the_page_selects(families, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*_commands()[1], "--json"])
    with pytest.raises(SystemExit):
        main()
    assert '"n_samples": 2' in capsys.readouterr().out  # lamp and garden


def test_the_checksums_of_the_page_are_those_that_are_checked(families, tmp_path):
    (script,) = [b[2] for b in _BLOCK.finditer(PAGE.read_text()) if "target_hash" in b[2]]
    path = families / "capitals" / "capitals.yaml"
    printed = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    text_sha256 = printed[0].removeprefix("text_sha256: ")
    (path.parent / "capitals.targets").write_text("\n".join(printed[1:]) + "\n")
    yaml = path.read_text().replace("  rows: 3", "  targets: capitals.targets\n  rows: 3")
    path.write_text(
        yaml.replace("      groups:", f"      text_sha256: {text_sha256}\n      groups:")
    )
    task = find_tasks(families)["capitals"]
    assert load_samples(task, None).text == "verified"
