"""One hostile program for every row of the threat model, with an honest one after each."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from g4eval.bundled import bundled_dir
from g4eval.sandbox.base import CodeJob, CodeTest, Verdict
from g4eval.sandbox.container import OWNER_LABEL, owner_label
from tests.integration.sandbox.conftest import HONEST, program

pytestmark = pytest.mark.docker

ATTACKS = bundled_dir("sandboxes") / "python_judge" / "cases" / "attacks"
LOOK_AROUND = program(
    "import os\n"
    "pids = [name for name in os.listdir('/proc') if name.isdigit()]\n"
    "print(sorted(os.listdir('/tmp')), len(pids))",
    ("", "[] 2"),
    job_id="look around",
)


def attack(folder: Path) -> CodeJob:
    job = json.loads((folder / "job.json").read_text())
    return CodeJob(
        job_id=folder.name,
        code=(folder / "submission.py").read_text(),
        tests=tuple(CodeTest(**test) for test in job["tests"]),
        fn_name=job.get("fn_name"),
        time_limit_seconds=job["time_limit_seconds"],
    )


@pytest.mark.parametrize("folder", sorted(ATTACKS.iterdir()), ids=lambda folder: folder.name)
def test_an_attack_gets_its_verdict_and_leaves_nothing_behind(judge, folder) -> None:
    expected = json.loads((folder / "expect.json").read_text())
    (result,) = judge(attack(folder))
    assert result.verdict.value in expected["verdicts"], result
    if "results" in expected:
        assert list(result.results) == expected["results"]
    honest, around = judge(HONEST, LOOK_AROUND)
    assert honest.verdict is Verdict.ACCEPTED
    assert around.verdict is Verdict.ACCEPTED, around.error


def test_a_kill_for_memory_is_not_counted_against_the_next_submission(make_judge) -> None:
    judge = make_judge(slots=1)
    killed = program("import signal\nsignal.raise_signal(signal.SIGKILL)")
    judge(attack(ATTACKS / "memory_kill_of_a_child"))
    (result,) = judge(killed)
    assert result.verdict is Verdict.RUNTIME_ERROR, result.error


def test_attacks_leave_the_host_as_it_was(make_judge, docker_client) -> None:
    def processes() -> int:
        return sum(path.name.isdigit() for path in Path("/proc").iterdir())

    names = ("disk_fill", "inode_fill", "fork_bomb", "orphans", "shared_memory", "memory_bomb")
    free, before = shutil.disk_usage("/").free, processes()
    judge = make_judge(slots=1)
    judge(*(attack(ATTACKS / name) for name in names))
    judge.close()
    judge.close = lambda: None  # the fixture closes what a test leaves open
    mine = {"label": f"{OWNER_LABEL}={owner_label()}"}
    left = docker_client.containers.list(all=True, filters=mine, ignore_removed=True)
    assert len(left) <= 1  # the session's own pool, where it has been started
    assert shutil.disk_usage("/").free > free - (100 << 20)
    assert processes() < before + 25  # other programs of this machine come and go; a bomb has 64


@pytest.mark.skipif(os.geteuid() != 0, reason="reading other processes' memory needs root")
def test_no_expected_output_is_in_a_containers_memory(make_judge, docker_client) -> None:
    judge = make_judge(slots=1)
    code = "import time\nx = input()\nprint(1)\ntime.sleep(2)"
    job = program(code, ("in-" + "83519027" * 4, "out-" + "60471938" * 4), time_limit_seconds=5)
    found: dict[str, bool] = {}

    async def run():
        task = asyncio.create_task(judge.sandbox.judge(job))
        await asyncio.sleep(0.5)
        (container,) = judge.sandbox._containers
        container.handle.reload()
        memory = _memory(container.handle.attrs["State"]["Pid"])
        found["input"] = b"in-83519027" in memory
        found["code"] = b"time.sleep(2)" in memory
        found["output"] = b"out-6047" in memory or b"60471938" in memory
        return await task

    result = judge.run(run())
    assert result.verdict is Verdict.WRONG_ANSWER
    assert found == {"input": True, "code": True, "output": False}


def test_a_submission_can_not_read_what_an_earlier_one_printed(make_judge) -> None:
    judge = make_judge(slots=1)
    secret = "".join(chr(97 + n * 7 % 26) for n in range(40))
    build = "''.join(chr(97 + n * 7 % 26) for n in range(40))"
    (first,) = judge(program(f"print({build})", ("", secret)))
    assert first.verdict is Verdict.ACCEPTED
    # It looks for the secret's XOR image, so that it holds no copy of the secret itself.
    scan = f"""
import re
image = bytes(ord(c) ^ 1 for c in {build}[8:])
pattern = bytes.maketrans(bytes(range(256)), bytes(n ^ 1 for n in range(256)))
hits = 0
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        span, flags = line.split()[:2]
        if flags.startswith('rw'):
            start, end = (int(x, 16) for x in span.split('-'))
            try:
                memory.seek(start)
                block = memory.read(min(end - start, 256 << 20))
            except (OSError, OverflowError):
                continue
            hits += block.translate(pattern).count(image)
print(hits, {{SECRETS}})
"""
    clean = scan.replace("{SECRETS}", "'clean'").replace(build, build)
    (second,) = judge(program(clean, ("", "0 clean"), time_limit_seconds=30))
    assert second.verdict is Verdict.ACCEPTED, second.error
    keeps = scan.replace("{SECRETS}", "'kept'").replace(
        "hits = 0", f"kept = {build}.encode()\nhits = 0"
    )
    (control,) = judge(program(keeps, ("", "0 kept"), time_limit_seconds=30))
    assert control.verdict is Verdict.WRONG_ANSWER  # the scan does find what is there


def _memory(pid: int) -> bytes:
    """Return what a process and its children hold in memory they can write."""
    pids = [pid]
    for parent in pids:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        pids += map(int, children)
    assert len(pids) > 1, "the submission is not running"
    blocks = []
    for one in pids:
        maps = Path(f"/proc/{one}/maps").read_text().splitlines()
        with Path(f"/proc/{one}/mem").open("rb", 0) as memory:
            for line in maps:
                span, flags = line.split()[:2]
                if flags.startswith("rw"):
                    start, end = (int(x, 16) for x in span.split("-"))
                    try:
                        memory.seek(start)
                        blocks.append(memory.read(end - start))
                    except OSError:
                        continue
    return b"".join(blocks)
