import json
from pathlib import Path
from typing import Any

import pytest

from g4eval.errors import ImportLineError
from g4eval.jsonlines import read_json_lines
from g4eval.report.diagnosis import diagnose
from g4eval.report.from_store import view_run
from g4eval.report.reproduction import reproduce
from tests.conftest import Cli
from tests.unit.report.cases import aime, estimate


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


def refused(quick_cli: Cli, tmp_path: Path, content: bytes, task: str = "demo_math") -> str:
    (tmp_path / "in.jsonl").write_bytes(content)
    result = quick_cli("import", task, "in.jsonl", "--model", "m", "--run-id", "r")
    assert result.returncode == 2, result.stderr
    assert not (tmp_path / "runs" / "r").exists()
    return result.stderr


def test_one_key_twice_is_refused_with_its_line(quick_cli: Cli, tmp_path: Path) -> None:
    good = json.dumps(line(1, "1")).encode()
    twice = b'{"sample_id": "demo_math-2", "text": "1", "text": "2"}'
    said = refused(quick_cli, tmp_path, good + b"\n\n" + twice + b"\n")
    assert "has one key twice" in said
    assert "in.jsonl:3" in said


def test_a_key_twice_deep_in_an_ignored_value_is_refused_too(quick_cli: Cli, tmp_path) -> None:
    row = b'{"sample_id": "demo_math-2", "text": "1", "x": [{"a": 1, "a": 2}]}\n'
    assert "has one key twice" in refused(quick_cli, tmp_path, row)


@pytest.mark.parametrize("number", [1, 3, 700])
def test_the_line_that_is_not_utf_8_is_named(quick_cli: Cli, tmp_path: Path, number: int) -> None:
    rows = [json.dumps(line(1, "x" * 50, repeat=n)).encode() for n in range(900)]
    rows[number - 1] = rows[number - 1].replace(b"xxx", b"x\xffx", 1)
    said = refused(quick_cli, tmp_path, b"\n".join(rows))
    assert "is not UTF-8" in said
    assert f"in.jsonl:{number}\n" in said


def test_repeats_that_leave_a_table_of_holes_are_refused(quick_cli: Cli, tmp_path: Path) -> None:
    rows = [line(1, "1"), line(2, "1", repeat=1_000_000)]
    said = refused(quick_cli, tmp_path, "\n".join(map(json.dumps, rows)).encode())
    assert "repeat 1,000,000 would make a table of 16,000,016 tries of 2 lines" in said
    assert "in.jsonl:2" in said


def test_a_few_hundred_repeats_are_fine(imported) -> None:
    assert imported(line(1, r"\boxed{33}", repeat=400))["estimate"]["n_graded"] == 1


def test_deep_and_endless_values_are_refused(quick_cli: Cli, tmp_path: Path) -> None:
    deep = b'{"sample_id": "demo_math-1", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "no JSON that can be read" in refused(quick_cli, tmp_path, deep)
    digits = b'{"sample_id": "demo_math-1", "text": "", "prompt_tokens": ' + b"9" * 10_000 + b"}"
    assert "no JSON that can be read" in refused(quick_cli, tmp_path, digits)


def test_a_line_past_the_limit_is_refused_before_it_is_read_whole(tmp_path, monkeypatch) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b'"' + b"x" * 5000 + b'"\n')
    rows = read_json_lines(path, error=ImportLineError, most_bytes=1000)
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(ImportLineError, match="longer than 1,000 bytes"):
        next(rows)


def test_settings_that_nobody_stated_are_unknown_everywhere(quick_cli: Cli, tmp_path) -> None:
    write(tmp_path / "in.jsonl", line(1, r"\boxed{33}"))
    done = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", "--run-id", "r")
    assert "prompt unknown; temperature, top-p, top-k, budget unknown" in done.stdout
    assert "tokens/s" not in done.stdout + done.stderr
    stated = quick_cli(
        "import", "demo_math", "in.jsonl", "--model", "m", "--run-id", "s",
        "--set", "sampling.temperature=0.6", "--set", "sampling.max_new_tokens=8192",
        "--set", "demo_math.prompt=default",
    )  # fmt: skip
    assert (
        "prompt default; temperature 0.6, budget 8,192 tokens, top-p, top-k unknown"
        in stated.stdout
    )


def test_another_budget_is_refused_with_both_values_and_both_ways_out(quick_cli: Cli) -> None:
    run = ("run", "demo_math", "--engine", "fake", "--model", "m", "--limit", "1")
    assert quick_cli(*run, "--run-id", "r").returncode == 0
    done = quick_cli(*run, "--run-id", "r", "--set", "sampling.max_new_tokens=77")
    assert done.returncode == 2
    assert "demo_math.sampling.max_new_tokens: 512 in the run, 77 asked for" in done.stderr
    assert "--set sampling.max_new_tokens=512 continues the run" in done.stderr
    assert "--run-id r-77 makes another with 77" in done.stderr


def test_what_an_import_does_not_say_comes_first_in_its_diagnosis(tmp_path, quick_cli) -> None:
    write(tmp_path / "in.jsonl", line(1, r"\boxed{33}"))
    done = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", "--run-id", "r")
    assert done.returncode == 0
    view = view_run(tmp_path / "runs" / "r")
    assert view.tasks[0].tokens_per_second is None
    assert (
        "only what was stated is known: temperature, top-p, top-k, budget unknown" in view.summary
    )
    facts = {fact.label: fact.value for fact in view.facts["Sampling"]}
    assert set(facts.values()) == {"unknown"}
    assert {f.label: f.value for f in view.facts["Run"]}["Run seed"] == "unknown"
    low = aime(estimate=estimate(0.5, 0.4, 0.6), unknown=view.tasks[0].measurement.unknown)
    assert low.unknown[0] == "prompt"
    first = diagnose(reproduce(low))[0]
    assert first.name == "unknown settings"
    assert "prompt, temperature" in first.evidence


def test_reading_a_file_plans_no_hours(tmp_path, quick_cli) -> None:
    rows = [line(n, r"\boxed{33}", completion_tokens=5000) for n in range(1, 17)]
    write(tmp_path / "in.jsonl", *rows)
    done = quick_cli("import", "demo_math", "in.jsonl", "--model", "m", "--run-id", "r")
    assert "tokens/s" not in done.stdout.replace(", 0 tokens/s", "")
    plan = quick_cli("gate-plan", "r")
    assert plan.returncode == 0, plan.stderr
    assert "tokens" in plan.stdout
    assert "hours" not in plan.stdout
