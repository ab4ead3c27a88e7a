import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Cli

FAMILY = {
    "sum.yaml": """id: sum
version: 1
title: Sums
licence: invented
invented: true
data:
  rows: 3
  sources:
    - {kind: package, path: rows.jsonl, columns: {sample_id: id, target: answer, problem: problem}}
prompts:
  default: {template: prompt.jinja, source: invented}
grader: plugin:SumGrader
""",
    "prompt.jinja": "{{ problem }}",
    "rows.jsonl": "".join(
        json.dumps({"id": f"s{i}", "problem": f"{i} + 1?", "answer": i + 1}) + "\n"
        for i in range(3)
    ),
    "plugin.py": """from g4eval.records import Grade, Outcome


class SumGrader:
    name = "sum"
    version = 1
    words = ()

    def grade(self, one_try):
        completion = one_try.completion
        right = completion.text in (str(one_try.sample.target), *self.words)
        return Grade(
            key=completion.key, grader=self.name, grader_version=self.version,
            outcome=Outcome.CORRECT if right else Outcome.INCORRECT, extraction=completion.text,
        )

    def example(self, sample, repeat, *, right):
        return str(sample.target if right else -1)
""",
}


def make_run(quick_cli: Cli, root: Path) -> None:
    folder = root / "families" / "sum"
    folder.mkdir(parents=True)
    for name, text in FAMILY.items():
        (folder / name).write_text(text)
    lines = [{"sample_id": f"s{i}", "text": text} for i, text in enumerate(["1", "two", "3"])]
    (root / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    result = quick_cli(
        *("import", "sum", "in.jsonl", "--model", "m", "--run-id", "r"),
        *("--tasks-dir", "families"),
    )
    assert result.returncode == 0, result.stderr


def grades_in(root: Path) -> int:
    with closing(sqlite3.connect(root / "runs" / "r" / "run.sqlite")) as db:
        return int(db.execute("SELECT COUNT(*) FROM grades").fetchone()[0])


def raise_version(root: Path) -> None:
    """A grader of version 2 that also takes words; in a folder of its own, since plugins stay."""
    (root / "families").rename(root / "newer")
    plugin = root / "newer" / "sum" / "plugin.py"
    text = plugin.read_text().replace("version = 1", "version = 2")
    plugin.write_text(text.replace("words = ()", 'words = ("two",)'))


def test_same_grader_changes_nothing_and_adds_nothing(quick_cli: Cli, tmp_path: Path) -> None:
    make_run(quick_cli, tmp_path)
    result = quick_cli("grade", "r", "--tasks-dir", "families", "--diff")
    assert result.stdout == "3 completions graded again, 0 changed\n"
    assert grades_in(tmp_path) == 3


def test_newer_grader_adds_grades_and_the_diff_names_what_changed(
    quick_cli: Cli, tmp_path: Path
) -> None:
    make_run(quick_cli, tmp_path)
    raise_version(tmp_path)
    result = quick_cli("grade", "r", "--tasks-dir", "newer", "--diff")
    assert result.stdout == (
        "3 completions graded again, 1 changed\n"
        "sum s1/0: incorrect ('two', version 1) -> correct ('two', version 2)\n"
    )
    assert grades_in(tmp_path) == 6
    shown = json.loads(quick_cli("show", "r", "--json").stdout)
    assert shown["tasks"]["sum"]["estimate"]["value"] == 1.0


def test_changes_as_json(quick_cli: Cli, tmp_path: Path) -> None:
    make_run(quick_cli, tmp_path)
    raise_version(tmp_path)
    result = json.loads(quick_cli("grade", "r", "--tasks-dir", "newer", "--json").stdout)
    assert result["graded"] == 3
    assert [(c["sample_id"], c["after"]["outcome"]) for c in result["changed"]] == [
        ("s1", "correct")
    ]


def test_export_writes_a_line_a_completion(quick_cli: Cli, tmp_path: Path) -> None:
    make_run(quick_cli, tmp_path)
    assert quick_cli("export", "r", "--to", "jsonl", "--out", "out.jsonl").returncode == 0
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["correct", "incorrect", "correct"]
    assert list(rows[0]) == [
        *("task", "sample_id", "repeat", "outcome", "extraction", "lenient_extraction"),
        *("verdict", "stop_reason", "text", "reasoning", "prompt_tokens", "completion_tokens"),
    ]
    assert quick_cli("export", "r", "--to", "jsonl").stdout == (tmp_path / "out.jsonl").read_text()


def test_export_to_parquet_has_the_same_rows(quick_cli: Cli, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    make_run(quick_cli, tmp_path)
    assert quick_cli("export", "r", "--to", "parquet", "--out", "out.parquet").returncode == 0
    lines = quick_cli("export", "r", "--to", "jsonl").stdout.splitlines()
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [json.loads(x) for x in lines]
