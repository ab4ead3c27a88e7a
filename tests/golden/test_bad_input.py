"""Every bad input has a message that says what, where and what to do, and never a traceback."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.golden.golden import check_golden

RUN = ("run", "demo_math", "--engine", "fake")
LINE = {"sample_id": "demo_math-1", "text": "\\boxed{33}"}

CASES: dict[str, tuple[str, ...]] = {
    "no_task": ("run", "--engine", "fake"),
    "unknown_command": ("rum",),
    "unknown_option": (*RUN, "--repeat", "3"),
    "unknown_task": ("run", "demo_maths", "--engine", "fake"),
    "unknown_engine": ("run", "demo_math", "--engine", "fak"),
    "unknown_profile": (*RUN, "--profile", "gemma-4-31"),
    "unknown_set_group": (*RUN, "--set", "sampler.temperature=1"),
    "unknown_set_sampling_key": (*RUN, "--set", "sampling.temprature=1"),
    "unknown_set_engine_key": (*RUN, "--set", "engine.acuracy=1"),
    "unknown_set_task_key": (*RUN, "--set", "demo_math.repeat=2"),
    "set_key_of_a_task_not_run": (*RUN, "--set", "aime26.repeats=2"),
    "set_without_value": (*RUN, "--set", "engine.accuracy"),
    "set_value_breaks_its_rule": (*RUN, "--set", "sampling.top_p=2"),
    "unknown_prompt": (*RUN, "--set", "demo_math.prompt=short"),
    "repeats_zero": (*RUN, "--repeats", "0"),
    "task_repeats_zero": (*RUN, "--set", "demo_math.repeats=0"),
    "limit_not_a_number": (*RUN, "--limit", "few"),
    "run_id_with_a_slash": (*RUN, "--run-id", "../x"),
    "data_missing_offline": ("run", "aime26", "--engine", "fake", "--data-dir", "nowhere"),
    "data_missing_without_data_dir": ("run", "aime26", "--engine", "fake"),
    "rows_missing": ("run", "aime26", "--engine", "fake", "--data-dir", "short"),
    "target_differs": ("run", "aime26", "--engine", "fake", "--data-dir", "wrong"),
    "text_differs": ("run", "aime26", "--engine", "fake", "--data-dir", "reworded"),
    "row_is_not_json": ("run", "aime26", "--engine", "fake", "--data-dir", "torn"),
    "config_file_missing": (*RUN, "--config", "missing.yaml"),
    "config_file_unknown_key": (*RUN, "--config", "unknown_key.yaml"),
    "config_file_is_not_yaml": (*RUN, "--config", "broken.yaml"),
    "manifest_missing": ("run", "--from", "missing.json"),
    "tasks_dir_missing": (*RUN, "--tasks-dir", "nowhere"),
    "task_yaml_unknown_key": (*RUN, "--tasks-dir", "bad_yaml"),
    "prompt_names_a_missing_field": ("run", "bad", "--engine", "fake", "--tasks-dir", "bad_field"),
    "plugin_raises": ("run", "bad", "--engine", "fake", "--tasks-dir", "bad_plugin"),
    "plugin_cannot_be_imported": (*RUN, "--tasks-dir", "bad_import"),
    "engine_stops": (*RUN, "--set", "engine.stop_after=3"),
    "show_unknown_run": ("show", "nothing"),
    "import_malformed": ("import", "demo_math", "malformed.jsonl", "--model", "m"),
    "import_not_an_object": ("import", "demo_math", "list.jsonl", "--model", "m"),
    "import_duplicate": ("import", "demo_math", "duplicate.jsonl", "--model", "m"),
    "import_unknown_sample": ("import", "demo_math", "unknown.jsonl", "--model", "m"),
    "import_without_text": ("import", "demo_math", "no_text.jsonl", "--model", "m"),
    "import_wrong_type": ("import", "demo_math", "type.jsonl", "--model", "m"),
    "import_stop_reason": ("import", "demo_math", "stop.jsonl", "--model", "m"),
    "import_target_not_allowed": ("import", "demo_math", "target.jsonl", "--model", "m"),
    "import_empty": ("import", "demo_math", "empty.jsonl", "--model", "m"),
    "import_missing_file": ("import", "demo_math", "missing.jsonl", "--model", "m"),
    "import_unknown_fact": (
        *("import", "demo_math", "good.jsonl", "--model", "m", "--set", "engine.dtipe=x"),
    ),
}  # fmt: skip

TASK = """id: bad
version: 1
title: Bad
licence: invented
data:
  rows: 1
  sources:
    - {kind: package, path: rows.jsonl, columns: {sample_id: id, target: answer, problem: problem}}
prompts:
  default: {template: prompt.jinja, source: invented}
grader: integer
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """The folder in which the commands run, with every bad file that they name."""
    lines: dict[str, list[object]] = {
        "good": [LINE],
        "malformed": [LINE, '{"sample_id": "demo_math-2", "text": '],
        "list": [[1]],
        "duplicate": [LINE, LINE | {"sample_id": "demo_math-2"}, LINE],
        "unknown": [LINE, LINE | {"sample_id": "demo_math-17"}],
        "no_text": [{"sample_id": "demo_math-1"}],
        "type": [LINE | {"repeat": "0"}],
        "stop": [LINE | {"stop_reason": "tired"}],
        "target": [LINE | {"target": "A"}],
        "empty": [],
    }
    for name, rows in lines.items():
        texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(text + "\n" for text in texts))
    (tmp_path / "unknown_key.yaml").write_text("repeat: 3\n")
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    make_aime(tmp_path)
    make_families(tmp_path)
    return tmp_path


def make_aime(root: Path) -> None:
    rows = [
        {"id": f"aime2026-{exam}-{n}", "problem": "invented", "answer": 0}
        for exam in ("I", "II")
        for n in range(1, 16)
    ]
    files = {"short": rows[:10], "wrong": rows}
    for name, kept in files.items():
        folder = root / name / "aime"
        folder.mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in kept)
        (folder / "aime_2026.jsonl").write_text(text)
    (root / "torn" / "aime").mkdir(parents=True)
    (root / "torn" / "aime" / "aime_2026.jsonl").write_text('{"id": "aime2026-I-1", "prob')
    (root / "reworded" / "aime").mkdir(parents=True)


def make_families(root: Path) -> None:
    kinds = {
        "bad_yaml": {"bad.yaml": TASK + "metric: accuracy\n"},
        "bad_field": {"bad.yaml": TASK, "prompt.jinja": "{{ question }}"},
        "bad_plugin": {
            "bad.yaml": TASK,
            "prompt.jinja": "{{ problem }}",
            "plugin.py": "def to_sample(row, source):\n    return row.nothing\n",
        },
        "bad_import": {"bad.yaml": TASK, "plugin.py": "import nothing_of_this_name\n"},
    }
    for name, files in kinds.items():
        folder = root / name / "family"
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text('{"id": "x", "problem": "1 + 1?", "answer": 2}\n')
        for file, text in files.items():
            (folder / file).write_text(text)


@pytest.mark.parametrize("case", sorted(CASES))
def test_bad_input_is_explained(case: str, quick_cli: Cli, inputs: Path, request) -> None:
    if case == "text_differs":
        reword_aime(inputs, request.getfixturevalue("data_dir"))
    before = {p for p in inputs.rglob("*") if "__pycache__" not in p.parts}
    result = quick_cli(*CASES[case])
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    text = f"exit {result.returncode}\n{result.stderr}".replace(str(inputs), "HERE")
    text = re.sub(r"(?m)^([0-9]+/[0-9]+|working), .*\n", "", text)  # how quick it was
    text = re.sub(r"(unverified\): ).*", r"\1WHY", text)  # with `datasets` or without
    check_golden(f"errors/{case}.txt", text)
    after = {p for p in inputs.rglob("*") if "__pycache__" not in p.parts}
    if case != "engine_stops":  # what was finished before is stored
        assert after == before, "a refused command left something behind"


def reword_aime(inputs: Path, data_dir: Path) -> None:
    """Real ids and targets with another text: only the checksum of the text can tell."""
    rows = (data_dir / "aime" / "aime_2026.jsonl").read_text().splitlines()
    reworded = [json.dumps(json.loads(row) | {"problem": "invented"}) for row in rows]
    (inputs / "reworded" / "aime" / "aime_2026.jsonl").write_text("\n".join(reworded) + "\n")


def test_run_id_of_another_configuration_is_refused_with_the_difference(quick_cli: Cli) -> None:
    assert quick_cli(*RUN, "--run-id", "mine").returncode == 0
    changes = ("--set", "sampling.temperature=0.5", "--set", "engine.accuracy=0.9", "--seed", "3")
    result = quick_cli(*RUN, "--run-id", "mine", *changes)
    check_golden("errors/run_id_exists.txt", f"exit {result.returncode}\n{result.stderr}")
    assert quick_cli("show", "mine").returncode == 0


def test_import_over_another_text_is_refused(quick_cli: Cli, inputs: Path) -> None:
    run = ("import", "demo_math", "good.jsonl", "--model", "m", "--run-id", "mine")
    assert quick_cli(*run).returncode == 0
    (inputs / "good.jsonl").write_text(json.dumps(LINE | {"text": "\\boxed{34}"}) + "\n")
    result = quick_cli(*run)
    check_golden("errors/import_other_text.txt", f"exit {result.returncode}\n{result.stderr}")


def test_broken_import_of_ours_exits_70(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shadow" / "yaml").mkdir(parents=True)
    (tmp_path / "shadow" / "yaml" / "__init__.py").write_text("import no_such_module\n")
    root = str(Path(__file__).resolve().parent.parent.parent)
    result = cli(*RUN, PYTHONPATH=f"{tmp_path / 'shadow'}:{root}")
    assert result.returncode == 70
    assert "error: a bug in g4eval: ModuleNotFoundError" in result.stderr


def test_broken_import_before_the_command_line_exits_70(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "click.py").write_text("import no_such_module\n")
    root = str(Path(__file__).resolve().parent.parent.parent)
    assert cli(*RUN, PYTHONPATH=f"{tmp_path / 'shadow'}:{root}").returncode == 70
