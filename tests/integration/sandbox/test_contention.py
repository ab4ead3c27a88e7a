"""A program within its limit passes however busy the machine is; reference: five on two slots."""

import time

import pytest

from g4eval.sandbox.base import CodeJob, Verdict
from tests.integration.sandbox.conftest import burning, function, program

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LOOP = "n = int(input())\nwhile n:\n    pass\nprint(n)"
LOOPING_FUNCTION = (
    "class Solution:\n    def f(self, n):\n        while n:\n            pass\n        return n"
)
BURN = "import time\nwhile time.process_time() < 3.3:\n    pass\nprint(6)"


def five() -> list[CodeJob]:
    return [program(BURN, job_id=str(n)) for n in range(5)]


def test_five_copies_of_a_3_3_second_solution_pass_on_two_slots(make_judge) -> None:
    results = make_judge(slots=2)(*five())
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * 5


@pytest.mark.parametrize("burners", [2, 6])
def test_time_limits_hold_while_others_burn_every_core(make_judge, burners) -> None:
    loops = [
        program("while True:\n    pass", time_limit_seconds=1.0),
        program(LOOP, ("0", "0"), ("1", "0"), time_limit_seconds=2.0),
        function(LOOPING_FUNCTION, ("0", "0"), ("1", "0"), time_limit_seconds=2.0),
    ]
    with burning(burners):
        results = make_judge(slots=2)(*five(), *loops)
    for result in results[:5]:
        assert result.verdict is not Verdict.TIME_LIMIT, result  # 3.3 s of 6 s
        assert result.verdict in (Verdict.ACCEPTED, Verdict.INTERNAL_ERROR)
        for earlier in result.details.get("suspect", []):
            assert earlier["verdict"] == "TLE"
            assert earlier["tests"][-1]["waited"] > 0.5
    for result in results[5:]:
        assert result.verdict in (Verdict.TIME_LIMIT, Verdict.INTERNAL_ERROR), result
        assert len(result.details.get("suspect", [])) <= 1


def test_a_time_out_is_decided_within_twice_the_official_budget(make_judge) -> None:
    loop = program("while True:\n    pass", time_limit_seconds=1.0)
    judge = make_judge(slots=1)
    with burning(6):
        started = time.monotonic()
        (result,) = judge(loop)
        taken = time.monotonic() - started
    assert result.verdict in (Verdict.TIME_LIMIT, Verdict.INTERNAL_ERROR)
    assert taken < 30 + 3 * ((1 + 1) * 1 + 5)  # both runs, and what a busy machine adds
