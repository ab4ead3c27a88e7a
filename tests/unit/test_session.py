import json
import sys
from pathlib import Path
from typing import Any

from tests.conftest import Cli

RUN = ("run", "demo_math", "--engine", "fake")


def as_json(result) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_run_id_names_model_engine_and_configuration(quick_cli: Cli) -> None:
    first = as_json(quick_cli(*RUN, "--model", "org/Some Model", "--json"))
    assert first["run_id"].startswith("Some-Model-fake-")
    other = as_json(quick_cli(*RUN, "--model", "org/Some Model", "--seed", "1", "--json"))
    assert other["run_id"] != first["run_id"]


def test_same_command_is_the_same_run_and_asks_for_nothing(quick_cli: Cli, tmp_path: Path) -> None:
    journal = ("--set", f"engine.journal={tmp_path / 'journal'}")
    first = quick_cli(*RUN, *journal)
    asked = (tmp_path / "journal").read_text()
    again = quick_cli(*RUN, *journal)
    assert again.stdout == first.stdout
    assert (tmp_path / "journal").read_text() == asked
    assert "0 completions to get, 32 stored" in again.stderr


def test_tasks_and_repeats_may_grow_in_a_run(quick_cli: Cli) -> None:
    assert (
        as_json(quick_cli(*RUN, "--repeats", "1", "--json"))["tasks"]["demo_math"]["plan"][
            "repeats"
        ]
        == 1
    )
    grown = as_json(quick_cli(*RUN, "--repeats", "3", "--json"))
    assert grown["tasks"]["demo_math"]["estimate"]["n_graded"] == 48
    fewer = as_json(quick_cli(*RUN, "--repeats", "1", "--json"))
    assert fewer["tasks"]["demo_math"] == grown["tasks"]["demo_math"]


def test_manifest_makes_the_run_again(quick_cli: Cli, tmp_path: Path) -> None:
    flags = ("--set", "engine.accuracy=0.4", "--set", "sampling.temperature=0.5", "--repeats", "3")
    first = quick_cli(*RUN, *flags, "--run-id", "one")
    manifest = tmp_path / "runs" / "one" / "manifest.json"
    again = quick_cli("run", "--from", str(manifest), "--run-id", "two")
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("two", "one") == first.stdout


def test_config_file_holds_the_same_keys_and_flags_win(quick_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "tasks: [demo_math]\nengine: fake\nrepeats: 2\nset: {sampling.temperature: 0.5}\n"
    )
    shown = as_json(quick_cli("run", "--config", "run.yaml", "--repeats", "4", "--json"))
    plan = shown["tasks"]["demo_math"]["plan"]
    assert (plan["repeats"], plan["sampling"]["temperature"]) == (4, 0.5)


def test_completions_of_equal_requests_are_taken_from_another_run(
    quick_cli: Cli, tmp_path: Path
) -> None:
    quick_cli(*RUN, "--repeats", "2", "--run-id", "old")
    journal = ("--set", f"engine.journal={tmp_path / 'journal'}")
    result = quick_cli(*RUN, "--repeats", "3", "--run-id", "new", "--reuse", "old", *journal)
    assert result.returncode == 0, result.stderr
    assert "32 completions taken from old" in result.stderr
    assert len((tmp_path / "journal").read_text().split()) == 16


def test_completions_of_another_configuration_are_not_taken(quick_cli: Cli, tmp_path: Path) -> None:
    quick_cli(*RUN, "--run-id", "old")
    changed = ("--set", "sampling.temperature=0.5")
    result = quick_cli(*RUN, "--run-id", "new", "--reuse", "old", *changed)
    assert "0 completions taken from old" in result.stderr


def test_log_carries_ids_and_no_text(quick_cli: Cli, tmp_path: Path) -> None:
    assert quick_cli(*RUN, "--log-file", "run.log", "-v").returncode == 0
    log = (tmp_path / "run.log").read_text()
    assert "demo_math-7/1" in log
    assert "boxed" not in log


def test_family_of_an_installed_package_is_found(quick_cli: Cli, tmp_path: Path) -> None:
    """An entry point in group g4eval.tasks names a package whose folder is a family."""
    package = tmp_path / "site" / "their_family"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rows.jsonl").write_text('{"id": "a", "problem": "1 + 1?", "answer": 2}\n')
    (package / "prompt.jinja").write_text("{{ problem }}")
    (package / "theirs.yaml").write_text(
        "id: theirs\nversion: 1\ntitle: Theirs\nlicence: theirs\ngrader: integer\n"
        "data:\n  rows: 1\n  sources:\n    - kind: package\n      path: rows.jsonl\n"
        "      columns: {sample_id: id, target: answer, problem: problem}\n"
        "prompts: {default: {template: prompt.jinja, source: theirs}}\n"
    )
    info = tmp_path / "site" / "their_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[g4eval.tasks]\ntheirs = their_family\n")

    sys.path.insert(0, str(tmp_path / "site"))
    try:
        shown = as_json(quick_cli("run", "theirs", "--engine", "fake", "--json"))
    finally:
        sys.path.remove(str(tmp_path / "site"))
    assert shown["tasks"]["theirs"]["estimate"]["n_samples"] == 1


def test_everything_missing_for_tasks_and_engine_is_named_at_once(cli: Cli, tmp_path: Path) -> None:
    result = cli(
        *("run", "aime25", "aime26", "--engine", "vllm", "--model", "invented/absent"),
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    assert result.returncode == 5
    assert "things are missing" in result.stderr
    for missing in (
        "the data of 'aime25' can't be found",
        "the data of 'aime26' can't be found",
        "the weights of 'invented/absent' aren't on this machine",
    ):
        assert result.stderr.count(missing) == 1
    assert not (tmp_path / "runs").exists()


def test_run_killed_before_its_manifest_file_was_written_continues(
    quick_cli: Cli, tmp_path: Path
) -> None:
    quick_cli(*RUN, "--run-id", "r")
    (tmp_path / "runs" / "r" / "manifest.json").unlink()
    assert quick_cli("show", "r").returncode == 0
    assert quick_cli(*RUN, "--run-id", "r").returncode == 0
    assert (tmp_path / "runs" / "r" / "manifest.json").exists()


def test_limit_and_repeats_that_grow_in_different_commands_end_whole(quick_cli: Cli) -> None:
    assert quick_cli(*RUN, "--limit", "4", "--repeats", "4").returncode == 0
    grown = quick_cli(*RUN, "--limit", "8", "--repeats", "2", "--json")
    assert as_json(grown)["tasks"]["demo_math"]["estimate"]["n_graded"] == 32


def test_changed_prompt_is_a_difference(quick_cli: Cli, tmp_path: Path) -> None:
    family = tmp_path / "families" / "own"
    family.mkdir(parents=True)
    (family / "rows.jsonl").write_text('{"id": "a", "problem": "1 + 1?", "answer": 2}\n')
    (family / "prompt.jinja").write_text("{{ problem }}")
    (family / "own.yaml").write_text(
        "id: own\nversion: 1\ntitle: Own\nlicence: own\ngrader: integer\n"
        "data:\n  rows: 1\n  sources:\n    - kind: package\n      path: rows.jsonl\n"
        "      columns: {sample_id: id, target: answer, problem: problem}\n"
        "prompts: {default: {template: prompt.jinja, source: own}}\n"
    )
    own = ("run", "own", "--engine", "fake", "--tasks-dir", "families")
    assert quick_cli(*own).returncode == 0
    (family / "prompt.jinja").write_text("Please: {{ problem }}")
    refused = quick_cli(*own)
    assert refused.returncode == 2
    assert "own.prompt_sha256: " in refused.stderr
