import asyncio
from pathlib import Path

import pytest

from g4eval.errors import SandboxError
from g4eval.graders import pool as pool_module
from g4eval.graders.pool import GradedTask, GraderPool, GraderRef
from g4eval.records import Completion, Grade, Outcome, Sample, StopReason, StoredTry, Try
from tests.driving import try_of

SAMPLE = Sample(sample_id="s", target=1)
PLUGIN = """import os
import time

from g4eval.records import Grade, Outcome


class OddGrader:
    name = "odd"
    version = 1

    def grade(self, one_try):
        completion = one_try.completion
        if completion.text == "hang":
            time.sleep(60)
        if completion.text == "hang in C":
            (1 << 40_000_000) ** 40
        if completion.text == "die":
            os._exit(1)
        if completion.text == "raise":
            raise ValueError("a bug")
        if completion.text == "eat memory":
            "x" * (64 * 2**30)
        return Grade(
            key=one_try.key, grader=self.name, grader_version=1, outcome=Outcome.CORRECT
        )

    def example(self, sample, repeat, *, right):
        return "fine"
"""


class Sink:
    """A GradeStore in memory."""

    def __init__(self, completions: list[Completion]) -> None:
        self.completions = completions
        self.grades: dict[str, Grade] = {}
        self.noted: dict[str, object] = {}

    async def add_grade(self, grade: Grade) -> None:
        assert grade.key not in self.grades, "graded twice"
        self.grades[grade.key] = grade

    async def flush(self) -> None:
        pass

    def note_grader(self, name, facts) -> None:
        self.noted[name] = facts

    def last_row(self, task_id: str) -> int:
        return len(self.completions)

    def ungraded(self, task_id, grader, version, *, after, retry, limit):
        rows = enumerate(self.completions, 1)
        todo = [(i, c) for i, c in rows if i > after and c.key not in self.grades]
        return [(i, StoredTry(completions=(c,))) for i, c in todo[:limit]]


def completions(*texts: str) -> list[Completion]:
    return [
        Completion(
            key=str(i), task_id="t", sample_id="s", repeat=i, text=text,
            stop_reason=StopReason.STOP,
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


def grade_all(tmp_path: Path, stored: list[Completion], offered: list[Completion]) -> Sink:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    ref = GraderRef("OddGrader", tmp_path)
    task = GradedTask("t", ref, {"s": SAMPLE})
    sink = Sink(stored)

    async def go() -> None:
        async with GraderPool([task], workers=1).saving_to(sink) as grading:
            for completion in offered:
                sink.completions.append(completion)
                grading.offer(try_of(SAMPLE, completion))

    asyncio.run(go())
    return sink


def outcomes(sink: Sink) -> list[Outcome]:
    return [sink.grades[c.key].outcome for c in sink.completions]


def test_what_earlier_sessions_left_and_what_is_offered_is_graded_once(tmp_path) -> None:
    everything = completions(*["fine"] * 100)
    sink = grade_all(tmp_path, everything[:40], everything[40:])
    assert outcomes(sink) == [Outcome.CORRECT] * 100


def test_full_queue_leaves_the_rest_to_the_store(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool_module, "QUEUE", 3)
    sink = grade_all(tmp_path, [], completions(*["fine"] * 200))
    assert outcomes(sink) == [Outcome.CORRECT] * 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hang", "no grade within 0.2 s"),
        ("die", "the grader died"),
        ("raise", "ValueError in the grader"),
        ("eat memory", "the grader used up its memory"),
    ],
)
def test_failure_of_a_grader_costs_one_completion_its_grade(
    text, reason, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(pool_module, "SECONDS_PER_GRADE", 0.2)
    plugin_patch = PLUGIN.replace("import os", PATCH + "import os", 1)
    monkeypatch.setattr(__import__(__name__, fromlist=["PLUGIN"]), "PLUGIN", plugin_patch)
    sink = grade_all(tmp_path, completions("fine", text, "fine"), [])
    assert outcomes(sink) == [Outcome.CORRECT, Outcome.UNGRADED, Outcome.CORRECT]
    # What it raised is told with the plugin's line.
    assert sink.grades["1"].details["reason"].partition(" at ")[0] == reason


# The worker is another process: it gets the shorter limit from the plugin that it loads.
PATCH = "from g4eval.graders import pool\npool.SECONDS_PER_GRADE = 0.2\n"


def test_grader_that_hangs_where_no_signal_reaches_is_killed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool_module, "SECONDS_PER_GRADE", 1)
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 2)
    monkeypatch.setattr(pool_module, "BATCHES_PER_WORKER", 1)
    sink = grade_all(tmp_path, completions("hang in C", "fine"), [])
    assert outcomes(sink) == [Outcome.UNGRADED, Outcome.CORRECT]
    assert sink.grades["0"].details["reason"] == "the grader hung"


class WaitingGrader:
    """An AsyncGrader whose sandbox may break."""

    name = "waiting"
    version = 1
    concurrency = 2
    at_once = 0
    most_at_once = 0
    opened = closed = False

    async def __aenter__(self):
        type(self).opened = True
        return self

    async def __aexit__(self, *_: object) -> None:
        type(self).closed = True

    async def grade(self, one_try: Try) -> Grade:
        cls = type(self)
        cls.at_once += 1
        cls.most_at_once = max(cls.most_at_once, cls.at_once)
        await asyncio.sleep(0.01)
        cls.at_once -= 1
        if one_try.completion.text == "break":
            raise SandboxError("the sandbox stopped")
        return Grade(key=one_try.key, grader=self.name, grader_version=1, outcome=Outcome.CORRECT)


def grade_async(monkeypatch, stored: list[Completion], offered: list[Completion]) -> Sink:
    monkeypatch.setattr(GraderRef, "load", lambda self: WaitingGrader())
    task = GradedTask("t", GraderRef("waiting"), {"s": SAMPLE})
    sink = Sink(stored)

    async def go() -> None:
        async with GraderPool([task]).saving_to(sink) as grading:
            for completion in offered:
                sink.completions.append(completion)
                grading.offer(try_of(SAMPLE, completion))
                await asyncio.sleep(0)

    asyncio.run(go())
    return sink


def test_asynchronous_grader_is_opened_closed_and_kept_to_its_concurrency(monkeypatch) -> None:
    everything = completions(*["fine"] * 12)
    sink = grade_async(monkeypatch, [], everything)
    assert outcomes(sink) == [Outcome.CORRECT] * 12
    assert WaitingGrader.opened
    assert WaitingGrader.closed
    assert WaitingGrader.most_at_once == 2


def test_sandbox_that_breaks_ends_the_session_with_its_own_error(monkeypatch) -> None:
    with pytest.raises(SandboxError, match="the sandbox stopped"):
        grade_async(monkeypatch, completions("fine", "break", "fine"), [])
