"""Attacks among honest programs, in any order: each honest verdict is the one it has alone.

One order in CI; ten orders, one slot and two, quiet and with both cores burnt: `nox -s long`.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from g4eval.bundled import bundled_dir
from g4eval.cli.judge import read_jobs
from g4eval.sandbox.base import CodeJob, Reading
from tests.integration.sandbox.conftest import burning
from tests.integration.sandbox.test_attacks import ATTACKS, attack

pytestmark = pytest.mark.docker

N_JOBS = 300
CASES = bundled_dir("sandboxes") / "python_judge" / "cases"
SLOW = ("TLE", "MLE", "OLE")


def honest() -> list[tuple[CodeJob, str]]:
    """Return the official cases that meet no limit, with the verdict each must have."""
    lines = (CASES / "official.expect.jsonl").read_text("utf-8").split("\n")
    verdicts = {case["id"]: case["verdict"] for case in map(json.loads, filter(None, lines))}
    jobs = read_jobs(Path(CASES / "official.jobs.jsonl"), Reading.OFFICIAL)
    return [(job, verdicts[job.job_id]) for job in jobs if verdicts[job.job_id] not in SLOW]


def attacks(*, quick: bool) -> list[CodeJob]:
    """Return the corpus; `quick`: without those that take seconds."""
    found = []
    for folder in sorted(ATTACKS.iterdir()):
        verdicts = json.loads((folder / "expect.json").read_text())["verdicts"]
        if not quick or not set(verdicts) & {"TLE", "MLE"}:
            found.append(replace(attack(folder), job_id=f"attack {folder.name}"))
    return found


def shuffled(seed: int, hostile: list[CodeJob]) -> tuple[list[CodeJob], dict[str, str]]:
    """Return 300 jobs in some order, and the verdicts that the honest ones must have."""
    draw = random.Random(seed)
    chosen = draw.sample(honest(), N_JOBS - len(hostile))
    jobs = [replace(job, job_id=f"{job.job_id} #{n}") for n, (job, _) in enumerate(chosen)]
    wanted = {job.job_id: verdict for job, (_, verdict) in zip(jobs, chosen, strict=True)}
    jobs += hostile
    draw.shuffle(jobs)
    return jobs, wanted


def moved(judge, seed: int, hostile: list[CodeJob]) -> list[tuple[str, str, str]]:
    """Return each honest job with another verdict than it has alone, and each attack judged AC."""
    jobs, wanted = shuffled(seed, hostile)
    results = judge(*jobs)
    assert len(results) == N_JOBS
    return [
        (result.job_id, wanted[result.job_id], f"{result.verdict.value}: {result.error}")
        for result in results
        if result.job_id in wanted and result.verdict.value != wanted[result.job_id]
    ]


def test_attacks_move_no_honest_verdict(make_judge) -> None:
    assert moved(make_judge(slots=2), 0, attacks(quick=True)) == []


@pytest.mark.long
@pytest.mark.parametrize("burners", [0, 2], ids=["quiet", "burnt"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_attacks_move_no_honest_verdict_in_any_order(make_judge, seed, slots, burners) -> None:
    with burning(burners):
        assert moved(make_judge(slots=slots), seed, attacks(quick=False)) == []
