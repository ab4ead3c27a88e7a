"""The same judge under gVisor, where the daemon knows a runtime called runsc."""

import pytest
from tests.integration.sandbox.conftest import FAIR, HONEST, function, program

from g4eval.sandbox.base import Verdict

pytestmark = pytest.mark.docker


@pytest.fixture
def gvisor(docker_client, make_judge):
    if "runsc" not in docker_client.info()["Runtimes"]:
        pytest.skip("the Docker daemon has no runtime called runsc")
    return make_judge(slots=1, runtime="runsc")


def test_programs_and_functions_get_their_verdicts_under_gvisor(gvisor) -> None:
    method = "class Solution:\n    def f(self, a):\n        return (a, a)"
    results = gvisor(
        HONEST,
        program("print(7)"),
        program("while True:\n    pass", time_limit_seconds=1),
        program("import os\nos._exit(0)"),
        function(method, ("1", "[1, 1]")),
        program("import sys\nprint(sum(int(x) for x in sys.stdin))", ("1\n5\n", "6"), reading=FAIR),
    )
    assert [result.verdict.value for result in results] == ["AC", "WA", "TLE", "RTE", "AC", "AC"]
    assert gvisor(HONEST)[0].verdict is Verdict.ACCEPTED
