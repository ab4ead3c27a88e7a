"""The table of a small fixed run, and of one sample, byte for byte."""

import json
from typing import Any

from tests.conftest import Cli
from tests.golden.golden import check_golden

RUN = ("run", "demo_math", "--engine", "fake", "--set", "engine.thinking=true")
ODD = ("--set", "engine.truncated_share=0.2", "--set", "engine.failed_share=0.1")


def test_table_of_a_run(quick_cli: Cli) -> None:
    result = quick_cli(*RUN, *ODD, "--repeats", "4", "--limit", "10")
    assert result.returncode == 5, result.stderr  # one request failed for good
    assert "error: requests without a completion: 1" in result.stderr
    check_golden("tables/run.txt", result.stdout)


def test_table_is_the_same_from_the_store(quick_cli: Cli) -> None:
    printed = quick_cli(*RUN, "--run-id", "r").stdout
    assert quick_cli("show", "r").stdout == printed


def test_json_has_the_numbers_of_the_table(quick_cli: Cli) -> None:
    quick_cli(*RUN, "--run-id", "r")
    shown = json.loads(quick_cli("show", "r", "--json").stdout)
    check_golden("tables/run.json", json.dumps(_rounded(shown), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Ten digits: another SciPy may differ in the last ones."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 10) if isinstance(value, float) else value


def test_one_sample(quick_cli: Cli) -> None:
    quick_cli(*RUN, "--run-id", "r")
    check_golden("tables/sample.txt", quick_cli("show", "r", "demo_math-3").stdout)


def test_engine_that_ignores_seeds_is_named_in_the_table(quick_cli: Cli) -> None:
    result = quick_cli(*RUN, "--set", "engine.same_text=true")
    assert "! demo_math: 16 repeats have the very text of another repeat" in result.stdout
    greedy = quick_cli(*RUN, "--set", "engine.same_text=true", "--set", "sampling.temperature=0")
    assert "very text" not in greedy.stdout


def test_list_of_tasks(quick_cli: Cli) -> None:
    check_golden("tables/tasks.txt", quick_cli("tasks").stdout)
