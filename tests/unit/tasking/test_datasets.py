import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from g4eval.errors import DataError, TaskError
from g4eval.records import Sample
from g4eval.tasking.datasets import load_samples, target_hash, text_hash
from g4eval.tasking.loader import Task, load_task

YAML = """id: t
version: 1
title: T
licence: invented
data:
  rows: 2
  {targets}
  sources:
    - kind: directory
      path: rows.jsonl
      columns: {{sample_id: id, target: answer, problem: problem}}
      {text}
prompts:
  default: {{template: prompt.jinja, source: invented}}
grader: integer
"""
ROWS: list[dict[str, Any]] = [
    {"id": "a", "problem": "1 + 1?", "answer": 2},
    {"id": "b", "problem": "2 + 2?", "answer": 4},
]
SAMPLES = [
    Sample(sample_id=r["id"], target=r["answer"], fields={"problem": r["problem"]}) for r in ROWS
]


@pytest.fixture
def make(tmp_path: Path):
    """Write a family and its rows; return the task."""

    def write(rows: list[dict[str, Any]], *, targets: bool = False, text: str = "") -> Task:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        lines = [f"{s.sample_id} {target_hash(s.sample_id, s.target)}\n" for s in SAMPLES]
        (tmp_path / "t.targets").write_text("".join(lines))
        values = {
            "targets": "targets: t.targets" if targets else "",
            "text": f"text_sha256: {text}" if text else "",
        }
        path = tmp_path / "t.yaml"
        path.write_text(YAML.format(**values))
        return load_task(path)

    return write


def test_rows_become_samples(make, tmp_path) -> None:
    data = load_samples(make(ROWS), tmp_path)
    assert data.samples == SAMPLES
    assert data.text == "not verified"
    assert not data.is_partial


def test_known_text_is_verified(make, tmp_path) -> None:
    assert load_samples(make(ROWS, text=text_hash(SAMPLES)), tmp_path).text == "verified"


def test_text_does_not_depend_on_the_order_of_rows(make, tmp_path) -> None:
    task = make(ROWS[::-1], text=text_hash(SAMPLES))
    assert load_samples(task, tmp_path).text == "verified"


def test_text_that_differs_from_the_known_one_is_refused(make, tmp_path) -> None:
    with pytest.raises(DataError, match="is not the text that the task states"):
        load_samples(make(ROWS, text="ab" * 32), tmp_path)


def test_target_that_differs_is_refused_by_id_without_quoting_it(make, tmp_path) -> None:
    rows = [ROWS[0], ROWS[1] | {"answer": 5}]
    with pytest.raises(DataError, match="1 of 2 rows of 't' have another target: b"):
        load_samples(make(rows, targets=True), tmp_path)


def test_unknown_id_is_refused(make, tmp_path) -> None:
    rows = [ROWS[0], ROWS[1] | {"id": "c"}]
    with pytest.raises(DataError, match="ids that the task doesn't know: c"):
        load_samples(make(rows, targets=True), tmp_path)


def test_missing_rows_are_refused_unless_asked_for(make, tmp_path) -> None:
    task = make(ROWS[:1])
    with pytest.raises(DataError, match="has 2 rows, and only 1 are here"):
        load_samples(task, tmp_path)
    assert load_samples(task, tmp_path, allow_partial=True).is_partial


def test_too_many_rows_are_refused(make, tmp_path) -> None:
    with pytest.raises(DataError, match="has 2 rows, and 3 are here"):
        load_samples(make([*ROWS, ROWS[0] | {"id": "c"}]), tmp_path)


def test_no_row_at_all_is_refused_even_where_partial_data_is_allowed(make, tmp_path) -> None:
    with pytest.raises(DataError, match="0 are here"):
        load_samples(make([]), tmp_path, allow_partial=True)


def test_doubled_row_is_refused(make, tmp_path) -> None:
    with pytest.raises(DataError, match="'a' is there twice"):
        load_samples(make([ROWS[0], ROWS[0]]), tmp_path)


@pytest.mark.parametrize("empty", [{"id": ""}, {"answer": None}, {"answer": ""}])
def test_empty_row_is_refused(empty, make, tmp_path) -> None:
    with pytest.raises(DataError, match="row 2 is empty"):
        load_samples(make([ROWS[0], ROWS[1] | empty]), tmp_path)


def test_missing_column_is_named(make, tmp_path) -> None:
    with pytest.raises(DataError, match="the column 'answer' is missing") as caught:
        load_samples(make([{"id": "a", "problem": "?"}]), tmp_path)
    assert caught.value.hint == "columns present: id, problem"
    assert (caught.value.where or "").endswith("rows.jsonl, row 1")


def test_rows_are_split_on_newlines_alone(make, tmp_path) -> None:
    rows = [ROWS[0] | {"problem": "a\u2028b\u0085c"}, ROWS[1]]
    task = make(rows)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    assert load_samples(task, tmp_path).samples[0].fields["problem"] == "a\u2028b\u0085c"


def archive_task(tmp_path: Path, member: str) -> Task:
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.csv", 'id,answer,problem\na,2,"1 +\n1?"\nb,4,2 + 2?\n')
    text = YAML.format(targets="", text="").replace(
        "path: rows.jsonl", f"path: rows.zip\n      member: {member}"
    )
    (tmp_path / "t.yaml").write_text(text)
    return load_task(tmp_path / "t.yaml")


def test_rows_are_read_from_an_archive(tmp_path) -> None:
    data = load_samples(archive_task(tmp_path, "rows.csv"), tmp_path)
    assert [s.fields["problem"] for s in data.samples] == ["1 +\n1?", "2 + 2?"]


def test_archive_without_the_member_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"the archive has no 'other\.csv'"):
        load_samples(archive_task(tmp_path, "other.csv"), tmp_path)


def test_file_that_is_no_archive_is_refused(tmp_path) -> None:
    task = archive_task(tmp_path, "rows.csv")
    (tmp_path / "rows.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="is not a readable archive"):
        load_samples(task, tmp_path)


def test_missing_file_of_targets_is_the_familys_mistake(make, tmp_path) -> None:
    task = make(ROWS, targets=True)
    (tmp_path / "t.targets").unlink()
    with pytest.raises(TaskError, match="can't be read"):
        load_samples(task, tmp_path)
