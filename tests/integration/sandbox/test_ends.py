"""Every way to end, at every moment, in both modes and by both clocks: the official rules' table.

12 ends x 4 moments x 2 modes x equal or different expected outputs x wall or CPU clock. CI runs a
part: each end at each moment once, the rest drawn by a seed. All 384: `nox -s long`.
"""

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest

from g4eval.sandbox.base import CodeJob, CodeTest
from g4eval.sandbox.container import Container, describe_problem
from g4eval.sandbox.docker_pool import PoolOptions
from tests.integration.sandbox.conftest import Judge

pytestmark = pytest.mark.docker

SEED = 13
N_TESTS = 6
MOMENTS = {"before the first": 0, "after one": 1, "after five": 5, "after the last": N_TESTS}
# What a program does, in a function `end`; a function's tests also get what it returns.
ENDS = {
    "exit": "os._exit(0)",
    "system exit": "raise SystemExit",
    "crash": "ctypes.string_at(0)",
    "kill": "posix.kill(posix.getpid(), 9)",
    "exception": "raise ValueError('no')",
    "interrupt": "raise KeyboardInterrupt",
    "loop": "while True: pass",
    "memory": "blocks = [bytearray(b'x' * (64 << 20)) for _ in range(100)]",
    "output": "print('x' * (17 << 20)); return 'x' * (17 << 20)",
    "sleep": "disarm(); time.sleep(60)",
    "stop": "posix.kill(posix.getpid(), 19); time.sleep(60)",
    "frame": "os.write(3, struct.pack('>cII', b'O', 77, 0)); time.sleep(60)",
}
IMPORTS = "import ctypes, os, posix, signal, struct, threading, time\n"
END = """
def disarm():
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)
def end():
    {action}
def later():
    threading.Timer(0.05, end).start()
"""
PROGRAM = (
    IMPORTS + END + "n = int(input())\n"
    "if n == {k}: end()\n"
    "if n == {last}: later()\n"
    "print({answer})\n"
)
FUNCTION = (
    IMPORTS + END + "if {k} == 0: end()\n"
    "class Solution:\n"
    "    def f(self, n):\n"
    "        if n == {k} > 0: return end()\n"
    "        if n == {last}: later()\n"
    "        return {answer}\n"
)


@dataclass(frozen=True)
class Case:
    end: str
    moment: str
    functional: bool
    equal: bool
    clock: str

    @property
    def job(self) -> CodeJob:
        k = MOMENTS[self.moment]
        code = (FUNCTION if self.functional else PROGRAM).format(
            action=ENDS[self.end],
            k=k,
            last=N_TESTS - 1 if k == N_TESTS else -1,
            answer="0" if self.equal else "n",
        )
        kind = "functional" if self.functional else "stdin"
        tests = tuple(
            CodeTest(input=str(n), output="0" if self.equal else str(n), testtype=kind)
            for n in range(N_TESTS)
        )
        return CodeJob(
            job_id=str(self),
            code=code,
            tests=tests,
            fn_name="f" if self.functional else None,
            time_limit_seconds=30.0 if self.end == "memory" else 0.4,
        )

    @property
    def expected(self) -> tuple[str, list[str], list[Any], int | None]:
        """Return verdict, results, and the official list and code, as the rules have them."""
        k = MOMENTS[self.moment]
        if k == N_TESTS:
            return "AC", ["AC"] * k, [True] * k, None
        if self.functional and k == 0:
            if self.end == "output":  # nobody looks at what a module prints
                return "AC", ["AC"] * N_TESTS, [True] * N_TESTS, None
            if self.end in ("exception", "loop"):  # an alarm is an exception too
                return "RTE", [], [-4], -4
        passed: list[Any] = [True] * k
        match self.end:
            case "exception":
                verdict, official, code = "RTE", [*passed, -4], -4
            case "loop" | "sleep" | "stop":
                verdict, official, code = "TLE", [*passed, -3], -3
            case "output":
                verdict, official, code = "OLE", [*passed, -2], -2
            case "system exit" if not self.functional:  # the end of a program that printed nothing
                verdict, official, code = "WA", [*passed, -2], -2
            case "memory":
                verdict, official, code = "MLE", [-2], -5
            case _:
                verdict, official, code = "RTE", [-2], -5
        return verdict, ["AC"] * k + [verdict], official, code


ALL = [
    Case(*parts)
    for parts in itertools.product(ENDS, MOMENTS, (False, True), (False, True), ("wall", "cpu"))
]


def some() -> list[Case]:
    """Return each end at each moment once, the other three drawn by a seed."""
    draw = random.Random(SEED)
    strata = itertools.groupby(ALL, key=lambda case: (case.end, case.moment))
    return [draw.choice(list(cases)) for _, cases in strata]


@pytest.fixture(scope="module")
def run_case(docker_client):
    """Judge a case in a container, replaced where the pool would replace it."""
    judge = Judge(PoolOptions(slots=1))  # for its containers alone
    containers: list[Container] = []

    def run(case: Case) -> Any:
        if not containers or containers[-1].is_spent:
            containers.append(judge.sandbox._new_container(0))
        job = case.job
        problem = describe_problem(f"{case.functional} {case.equal}", job)
        return containers[-1].judge(job, problem, case.clock)

    yield run
    judge.close()
    for container in containers:
        container.remove()


def check(run_case: Any, case: Case) -> None:
    result = run_case(case).result
    verdict, results, official, code = case.expected
    got = result.details
    assert (result.verdict, list(result.results)) == (verdict, results), result
    assert repr(got["official_results"]) == repr(official)
    assert got["official_error_code"] == code


@pytest.mark.parametrize("case", some(), ids=str)
def test_an_end_gets_the_official_verdict_and_list(run_case, case) -> None:
    check(run_case, case)


@pytest.mark.long
@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_end_gets_the_official_verdict_and_list(run_case, case) -> None:
    check(run_case, case)
