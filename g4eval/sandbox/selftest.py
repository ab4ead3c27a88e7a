"""Try a container before it judges anything: refuse to grade if one attack of many succeeds."""

from typing import TYPE_CHECKING

from g4eval.bundled import bundled_dir
from g4eval.errors import SandboxError
from g4eval.sandbox.base import CodeJob, CodeTest, Reading
from g4eval.sandbox.frames import StreamError

if TYPE_CHECKING:
    from g4eval.sandbox.container import Container

_TRIES = 30  # lines the program prints


def check_container(container: "Container") -> None:
    """Run the self-test in a container; SandboxError if anything that must be refused was not."""
    from g4eval.sandbox.container import describe_problem  # noqa: PLC0415  imports this module's user

    source = bundled_dir("sandboxes") / "python_judge" / "selftest.py"
    job = CodeJob(
        job_id="selftest",
        code=source.read_text(),
        tests=(CodeTest(input="", output="\n" * _TRIES + "all refused"),),
        reading=Reading.FAIR,
    )
    try:
        lines = container.run_program(job, describe_problem("selftest", job)).splitlines()
    except StreamError as error:  # a try that reached the server
        lines = [f"the container did not survive it: {error}"]
    possible = [line for line in lines if not line.endswith(": refused")]
    if possible or len(lines) != _TRIES:
        raise SandboxError(
            f"the sandbox doesn't hold: {'; '.join(possible) or f'{len(lines)} of {_TRIES} tries'}",
            hint="g4eval doctor; is Docker's seccomp support or user isolation switched off?",
        )
