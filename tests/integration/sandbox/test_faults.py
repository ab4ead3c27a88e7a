"""What goes wrong around the judge: no verdict is lost or invented."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from g4eval.errors import SandboxError
from g4eval.sandbox.base import Verdict
from g4eval.sandbox.container import LABEL, OWNER_LABEL
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions, connect
from tests.integration.sandbox.conftest import HONEST, function, program

pytestmark = pytest.mark.docker

SLEEP = program("import time\ntime.sleep(1.5)\nprint(6)", job_id="sleep")


def kill_containers(judge, after: float, times: int = 1):
    async def kill() -> int:
        killed: set[str] = set()
        end = time.monotonic() + 30
        while len(killed) < times and time.monotonic() < end:
            await asyncio.sleep(after)
            for container in list(judge.sandbox._containers):
                if container.handle.id not in killed:
                    await asyncio.to_thread(container.handle.kill)
                    killed.add(container.handle.id)
        return len(killed)

    async def both():
        return await asyncio.gather(judge.sandbox.judge(SLEEP), kill())

    return judge.run(both())


def test_a_container_killed_from_outside_costs_no_verdict(make_judge) -> None:
    judge = make_judge(slots=1)
    result, killed = kill_containers(judge, 0.5)
    assert killed == 1
    assert result.verdict is Verdict.ACCEPTED
    assert judge(HONEST)[0].verdict is Verdict.ACCEPTED


def test_a_container_killed_twice_is_our_failure_and_the_next_job_is_judged(make_judge) -> None:
    judge = make_judge(slots=1)
    result, killed = kill_containers(judge, 0.7, times=2)
    assert killed == 2
    assert result.verdict is Verdict.INTERNAL_ERROR
    assert "failed twice" in result.error
    assert judge(HONEST)[0].verdict is Verdict.ACCEPTED


def test_containers_are_replaced_after_so_many_jobs(make_judge) -> None:
    judge = make_judge(slots=1, recycle_after=4)
    before = {container.handle.id for container in judge.sandbox._containers}
    results = judge(*[HONEST] * 10)
    assert {result.verdict for result in results} == {Verdict.ACCEPTED}
    after = {container.handle.id for container in judge.sandbox._containers}
    assert before.isdisjoint(after)


def test_ten_megabytes_of_output_are_compared(judge) -> None:
    good, bad = judge(
        program("print('7' * 10_000_000)", ("", "7" * 10_000_000)),
        program("print('7' * 9_999_999 + '8')", ("", "7" * 10_000_000)),
    )
    assert (good.verdict, bad.verdict) == (Verdict.ACCEPTED, Verdict.WRONG_ANSWER)


def test_a_hundred_megabytes_of_input_are_read(judge) -> None:
    text = "1234567 " * (100_000_000 // 8)
    (result,) = judge(program("print(len(input()))", (text, str(len(text))), time_limit_seconds=30))
    assert result.verdict is Verdict.ACCEPTED
    assert judge(HONEST)[0].verdict is Verdict.ACCEPTED


def test_a_child_that_ignores_every_signal_is_ended(judge) -> None:
    stubborn = (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try:\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n"
        "        pass\n"
        "while True:\n"
        "    pass\n"
    )
    assert judge(program(stubborn, time_limit_seconds=1))[0].verdict is Verdict.TIME_LIMIT
    assert judge(HONEST)[0].verdict is Verdict.ACCEPTED


def test_large_arguments_of_a_function_arrive(judge) -> None:
    numbers = list(range(200_000))
    code = "class Solution:\n    def f(self, a):\n        return a[::-1]"
    (result,) = judge(function(code, (str(numbers), str(numbers[::-1]))))
    assert result.verdict is Verdict.ACCEPTED


def test_a_missing_image_says_how_to_build_it(docker_client) -> None:
    async def start():
        async with DockerSandbox(PoolOptions(slots=1, image="g4eval-no-such-image:1")):
            pass

    with pytest.raises(SandboxError) as caught:
        asyncio.run(start())
    assert "g4eval-no-such-image" in caught.value.what
    assert caught.value.hint == "g4eval doctor --build-sandbox"


def test_without_a_daemon_the_command_ends_with_5_and_says_what_to_do(tmp_path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"id": "a", "code": "", "tests": [{"input": "", "output": ""}]}\n')
    done = subprocess.run(
        [sys.executable, "-m", "g4eval", "judge", str(jobs)],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert done.stdout == ""
    assert "no Docker daemon answers" in done.stderr
    assert "docker info" in done.stderr


def test_a_killed_owner_leaves_no_container(docker_client) -> None:
    script = (
        "import asyncio, time\n"
        "from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions\n"
        "async def main():\n"
        "    async with DockerSandbox(PoolOptions(slots=1)):\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    owned = [
        container
        for container in docker_client.containers.list(
            filters={"label": LABEL}, ignore_removed=True
        )
        if f":{process.pid}:" in container.labels[OWNER_LABEL]
    ]
    assert len(owned) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ids = {
            c.id
            for c in docker_client.containers.list(
                all=True, filters={"label": LABEL}, ignore_removed=True
            )
        }
        if owned[0].id not in ids:
            return
        time.sleep(0.2)
    pytest.fail("the container outlived its owner")


def test_an_interrupt_removes_the_containers(docker_client, tmp_path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(
        '{"id": "a", "code": "while True: pass", "tests": [{"input": "", "output": ""}], '
        '"time_limit_seconds": 60}\n'
    )
    command = [sys.executable, "-m", "g4eval", "judge", str(jobs), "--slots", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    label = {"label": LABEL}

    def owned() -> list[Any]:
        return [
            container
            for container in docker_client.containers.list(
                all=True, filters=label, ignore_removed=True
            )
            if f":{process.pid}:" in container.labels.get(OWNER_LABEL, "")
        ]

    deadline = time.monotonic() + 60
    while not owned() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    deadline = time.monotonic() + 20
    while owned() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert owned() == []


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0
    or not Path("/var/run/docker.pid").exists()
    or Path("/run/systemd/system").exists(),
    reason="restarting the daemon needs root and a dockerd started by hand",
)
def test_a_restarted_daemon_costs_no_verdict(make_judge) -> None:
    judge = make_judge(slots=1)
    pid = int(Path("/var/run/docker.pid").read_text())
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]

    def restart() -> None:
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists() and b"Z" not in _state(pid):
            time.sleep(0.1)
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        subprocess.Popen(  # the daemon outlives the test, as the one it replaces would have
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ).returncode = 0

    async def both():
        jobs = [judge.sandbox.judge(job) for job in (SLEEP, HONEST, HONEST)]
        running = asyncio.gather(*jobs)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(restart)
        return await running

    results = judge.run(both())
    _wait_for_daemon()
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * 3


def _wait_for_daemon() -> None:
    """Wait until the daemon answers again, for the tests that follow."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with closing(connect()):
                return
        except SandboxError:
            assert time.monotonic() < deadline, "the daemon didn't come back"
            time.sleep(0.5)


def _state(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return b"Z"
