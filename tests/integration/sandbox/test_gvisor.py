"""A runtime that doesn't hold what the judge needs is refused, whatever its name promises."""

import pytest

from g4eval.errors import SandboxError

pytestmark = pytest.mark.docker


def test_a_runtime_that_fails_the_self_test_is_refused(docker_client, make_judge) -> None:
    if "runsc" not in docker_client.info()["Runtimes"]:
        pytest.skip("the Docker daemon has no runtime called runsc")
    with pytest.raises(SandboxError, match="the sandbox doesn't hold"):
        make_judge(slots=1, runtime="runsc")
