"""A program within its limit passes however busy the machine is; reference: five on two slots."""

import subprocess
import sys

import pytest

from g4eval.sandbox.base import CodeJob, Verdict
from tests.integration.sandbox.conftest import program

pytestmark = [pytest.mark.docker, pytest.mark.slow]

BURN = "import time\nwhile time.process_time() < 3.3:\n    pass\nprint(6)"


@pytest.fixture
def burners():
    """Two processes that want both cores all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    yield
    for process in processes:
        process.kill()
        process.wait()


def five() -> list[CodeJob]:
    return [program(BURN, job_id=str(n)) for n in range(5)]


def test_five_copies_of_a_3_3_second_solution_pass_on_two_slots(make_judge) -> None:
    results = make_judge(slots=2)(*five())
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * 5


def test_they_pass_while_others_burn_both_cores(make_judge, burners) -> None:
    results = make_judge(slots=2)(*five())
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * 5
    for result in results:
        for earlier in result.details.get("suspect", []):
            assert earlier["verdict"] == "TLE"
            assert earlier["tests"][-1]["waited"] > 0.5


def test_a_program_over_its_cpu_limit_stays_a_time_out_under_load(make_judge, burners) -> None:
    loop = program("while True:\n    pass", time_limit_seconds=1.0)
    (result,) = make_judge(slots=1)(loop)
    assert result.verdict is Verdict.TIME_LIMIT
    assert len(result.details.get("suspect", [])) <= 2
