"""The help texts, byte for byte: a flag that appears or goes is a change for users."""

import pytest

from g4eval.cli.main import COMMANDS
from tests.conftest import Cli
from tests.golden.golden import check_golden


def test_help_of_the_program(quick_cli: Cli) -> None:
    result = quick_cli("--help")
    assert result.returncode == 0
    check_golden("help/g4eval.txt", result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, quick_cli: Cli) -> None:
    result = quick_cli(name, "--help")
    assert result.returncode == 0
    check_golden(f"help/{name}.txt", result.stdout)
