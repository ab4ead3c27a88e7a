import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli


def write(path: Path, *rows: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(sample: int, text: str, **more: object) -> dict[str, object]:
    return {"sample_id": f"demo_math-{sample}", "text": text, **more}


@pytest.fixture
def imported(quick_cli: Cli, tmp_path: Path):
    """Import lines as demo_math of model m and return the task's JSON."""

    def run(*rows: dict[str, object], **_: object) -> Any:
        write(tmp_path / "in.jsonl", *rows)
        result = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", "--run-id", "r",
                           "--json")  # fmt: skip
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["tasks"]["demo_math"]

    return run


def test_lines_become_graded_completions(imported) -> None:
    task = imported(line(1, r"\boxed{33}"), line(2, r"\boxed{5}"), line(3, "none"))
    estimate = task["estimate"]
    assert estimate["value"] == pytest.approx(1 / 3)
    assert (estimate["n_samples"], estimate["n_no_answer"]) == (3, 1)
    assert task["is_partial"]


def test_unequal_repeats_are_fine_and_marked_partial(imported) -> None:
    task = imported(line(1, r"\boxed{33}"), line(1, r"\boxed{3}", repeat=1), line(2, r"\boxed{2}"))
    assert task["estimate"]["value"] == 0.75
    assert task["is_partial"]


def test_line_without_stop_reason_counts_as_stopped(imported) -> None:
    assert imported(line(1, r"\boxed{33}"))["estimate"]["n_truncated"] == 0


def test_opening_marker_without_its_close_is_an_unfinished_thought(imported) -> None:
    estimate = imported(line(1, r"<think>so \boxed{33}"))["estimate"]
    assert (estimate["value"], estimate["n_no_answer"]) == (0, 1)


def test_reasoning_field_without_text_after_length_has_no_answer(imported) -> None:
    row = line(1, "", reasoning=r"so \boxed{33}", stop_reason="length")
    estimate = imported(row)["estimate"]
    assert (estimate["value"], estimate["n_no_answer"], estimate["n_truncated"]) == (0, 1, 1)


def test_cut_answer_after_a_closed_thought_is_graded_and_truncated(imported) -> None:
    row = line(1, r"<think>hm</think>\boxed{33}, because", stop_reason="length")
    estimate = imported(row)["estimate"]
    assert (estimate["value"], estimate["n_truncated"]) == (1, 1)


def test_token_counts_are_kept(imported) -> None:
    task = imported(line(1, r"\boxed{33}", completion_tokens=100, prompt_tokens=7))
    assert task["mean_completion_tokens"] == 100


def test_importing_again_changes_nothing(imported) -> None:
    rows = [line(1, r"\boxed{33}"), line(2, r"\boxed{2}")]
    assert imported(*rows) == imported(*rows)


def test_importing_more_lines_adds_them(imported) -> None:
    imported(line(1, r"\boxed{33}"))
    assert imported(line(2, r"\boxed{2}"))["estimate"]["n_samples"] == 2


def test_keys_that_mean_nothing_are_named_and_ignored(quick_cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line(1, r"\boxed{33}", model="x"))
    result = quick_cli("import", "demo_math", "in.jsonl", "--model", "m")
    assert result.returncode == 0
    assert "keys that are ignored: model" in result.stderr


def test_declared_facts_are_marked_and_are_part_of_the_run(quick_cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line(1, r"\boxed{33}"))
    flags = ("--set", "engine.quantization=fp8", "--set", "engine.thinking=true")
    result = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", *flags, "--json")
    shown = json.loads(result.stdout)
    assert shown["engine"]["quantization"] == "fp8"
    assert shown["engine"]["thinking"] == "on"
    assert shown["declared"] == ["quantization", "thinking"]
    plain = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", "--json")
    assert json.loads(plain.stdout)["run_id"] != shown["run_id"]


def test_another_task_of_the_model_is_added_to_the_run(
    quick_cli: Cli, tmp_path: Path, data_dir: Path
) -> None:
    write(tmp_path / "a.jsonl", line(1, r"\boxed{33}"))
    write(tmp_path / "b.jsonl", {"sample_id": "aime2026-I-1", "text": r"\boxed{1}"})
    first = quick_cli("import", "demo_math", "a.jsonl", "--model", "m", "--json")
    second = quick_cli(
        "import", "aime26", "b.jsonl", "--model", "m", "--json", "--data-dir", str(data_dir)
    )
    assert json.loads(first.stdout)["run_id"] == json.loads(second.stdout)["run_id"]
    assert set(json.loads(second.stdout)["tasks"]) == {"demo_math", "aime26"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"sample_id": "demo_math-1", "text": "x", "repeat": 9223372036854775808}', "between 0"),
        ('{"sample_id": "demo_math-1", "text": "x", "prompt_tokens": 1e3}', "wrong type"),
        ('{"sample_id": "demo_math-1", "text": "x", "n": ' + "9" * 5000 + "}", "no JSON"),
        ("[" * 200_000, "no JSON"),
    ],
)
def test_hostile_line_is_refused_with_its_number(
    text: str, says: str, quick_cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(text + "\n")
    result = quick_cli("import", "demo_math", "in.jsonl", "--model", "m")
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "in.jsonl:1" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_pipe_is_refused_since_it_can_be_read_once(quick_cli: Cli, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    result = quick_cli("import", "demo_math", "pipe", "--model", "m")
    assert result.returncode == 2
    assert "is not a regular file" in result.stderr


def test_refused_import_leaves_the_run_as_it_was(imported, quick_cli: Cli, tmp_path: Path) -> None:
    before = imported(*(line(i, r"\boxed{33}") for i in range(1, 17)))
    write(tmp_path / "bad.jsonl", line(1, "x", repeat=7), line(1, "another text"))
    assert quick_cli("import", "demo_math", "bad.jsonl", "--model", "m", "--run-id", "r"
                     ).returncode == 2  # fmt: skip
    after = json.loads(quick_cli("show", "r", "--json").stdout)["tasks"]["demo_math"]
    assert after == before
