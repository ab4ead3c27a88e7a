"""A run made with the real store becomes a view; its texts are read from the store again."""

import asyncio
import json
from dataclasses import replace

import pytest

from g4eval.config import SamplingParams
from g4eval.engines.base import EngineFacts
from g4eval.records import (
    Chat,
    Completion,
    Grade,
    Message,
    Outcome,
    Request,
    Sample,
    StopReason,
    Thought,
)
from g4eval.report.from_store import view_run
from g4eval.report.measuring import reproduce_run
from g4eval.stats.summary import summarise
from g4eval.store.manifest import write_manifest
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from g4eval.store.schema import unpack_messages, unpack_text
from tests.unit.report.verdicts import verdict_record

FACTS = EngineFacts(
    engine="vllm",
    engine_version="0.23.1",
    model="google/gemma-4-31B-it",
    weights_fingerprint="5d" * 32,
    dtype="bfloat16",
    quantization="none",
    thinking="on",
    declared=("dtype",),
)
PLAN = {
    "title": "AIME 2026",
    "version": 1,
    "family": "aime",
    "gated": False,
    "invented": False,
    "metrics": ["accuracy", "pass@k"],
    "splits": ["exam"],
    "grader": "integer",
    "prompt": "default",
    "sampling": SamplingParams(max_new_tokens=65536).model_dump(mode="json"),
    "repeats": 2,
    "settings": {},
    "rows_stated": 2,
    "n_selected": 2,
    "is_generated": True,
    "data_is_partial": False,
    "source": "aime_2026.jsonl",
    "text": "verified",
    "published_as": "aime26",
}
SAMPLES = (
    Sample(sample_id="b", target=42, groups={"exam": "I"}),
    Sample(sample_id="a", target=7, groups={"exam": "II"}),
)


def request(sample_id, repeat):
    return Request(
        key=f"{sample_id}.{repeat}.".ljust(64, "0"),
        task_id="aime26",
        task_version=1,
        sample_id=sample_id,
        repeat=repeat,
        prompt=Chat((Message(role="user", content=f"question {sample_id}"),)),
        sampling=SamplingParams(),
        seed=0,
    )


def completion(sample_id, repeat, **changes):
    return Completion(
        key=request(sample_id, repeat).key,
        task_id="aime26",
        sample_id=sample_id,
        repeat=repeat,
        text=f"answer {sample_id}{repeat}",
        **{
            "reasoning": "hm",
            "thought": Thought.CLOSED,
            "stop_reason": StopReason.STOP,
            "completion_tokens": 100,
            "started_at": 1000.0,
            "finished_at": 1010.0,
            **changes,
        },
    )


def grade(outcome, **changes):
    return Grade(key="", grader="integer", grader_version=1, outcome=outcome, **changes)


UNFINISHED = {"stop_reason": StopReason.LENGTH, "thought": Thought.OPEN}
ROWS = (
    (completion("b", 0), grade(Outcome.CORRECT, extraction="42")),
    (
        completion("b", 1, started_at=1005.0, finished_at=1020.0, **UNFINISHED),
        grade(Outcome.NO_ANSWER, details={"reason": "the thought was not closed"}),
    ),
    (
        completion("a", 0, started_at=2000.0, finished_at=2010.0),
        grade(
            Outcome.INCORRECT,
            extraction="8",
            lenient_extraction="7",
            lenient_outcome=Outcome.CORRECT,
            details={
                "error": "line 1: '3' where '2' is expected",
                "cpu_seconds": 0.5,
                "results": ["AC", "WA"],
                "failed_test": {"input": "1", "expected": "2"},
            },
        ),
    ),
)


def make_run(folder, *, rows=ROWS, plan=PLAN, facts=FACTS, samples=SAMPLES):
    """A run folder, written by the real store."""

    async def fill():
        with RunStore(folder) as store:
            store.set_meta({"run_id": "r1", "engine": facts.engine, "model": facts.model})
            store.set_task("aime26", plan, samples, gated=plan["gated"])
            for stored, judged in rows:
                sent = request(stored.sample_id, stored.repeat)
                store.expect(sent, gated=plan["gated"])
                await store.add_answer(stored)
                await store.add_grade(replace(judged, key=stored.key))

    asyncio.run(fill())
    manifest = {
        "run_id": "r1",
        "g4eval_version": "0.1.0",
        "created": "2026-11-24T00:00:00+00:00",
        "engine": {**facts.identity(), "fingerprint": facts.fingerprint},
        "engine_declared": list(facts.declared),
        "engine_operation": {"concurrency": 8},
        "identity": {"seed": 3},
        "config": {"tasks": ["aime26"]},
        "tasks": {"aime26": plan},
        "platform": {"python": "3.11.7"},
    }
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def view(tmp_path):
    """The view of a small run."""
    return view_run(make_run(tmp_path / "r1"))


def test_samples_stand_in_the_tasks_order_with_their_tries(view):
    (task,) = view.tasks
    assert [sample.sample_id for sample in task.samples] == ["b", "a"]
    first, second = task.samples[0].repeats
    assert (first.outcome, first.is_truncated, first.completion_tokens) == (
        Outcome.CORRECT,
        False,
        100,
    )
    assert (second.outcome, second.is_truncated) == (Outcome.NO_ANSWER, True)
    assert task.samples[0].groups == {"exam": "I"}


def test_readings_disagree_where_the_second_would_have_graded_otherwise(view):
    assert [r.readings_disagree for s in view.tasks[0].samples for r in s.repeats] == [
        False,
        False,
        True,
    ]


def test_the_measurement_carries_what_a_comparison_needs(view):
    measured = view.tasks[0].measurement
    assert (measured.published_as, measured.benchmark) == ("google/gemma-4-31B-it", "aime26")
    assert (measured.thinking, measured.max_new_tokens, measured.quantization) == (
        "on",
        65536,
        "none",
    )
    assert measured.share_with_thought == 1.0
    assert measured.estimate.n_graded == 3
    assert measured.is_partial  # one of four requests is still to be sent


def test_texts_are_read_from_the_store_as_they_were_written(view):
    by_id = {texts.sample_id: texts for texts in view.read_texts("aime26")}
    assert by_id["b"].target == 42
    first, second = by_id["b"].repeats
    assert unpack_text(first.text) == "answer b0"
    assert unpack_messages(first.prompt) == (Message(role="user", content="question b"),)
    assert (first.extraction, first.seconds) == ("42", 10.0)
    assert (second.stop_reason, second.notes) == ("length", ("the thought was not closed",))
    (judged,) = by_id["a"].repeats
    assert (judged.extraction, judged.lenient_extraction) == ("8", "7")
    first, last = judged.tests
    assert (first.verdict, first.input) == ("AC", None)
    assert (last.verdict, last.input, last.expected) == ("WA", "1", "2")
    assert last.got == "line 1: '3' where '2' is expected"
    assert judged.notes == ("cpu seconds 0.5",)


def test_speed_counts_the_time_in_which_anything_was_under_way(view):
    # 1000 to 1010 and 1005 to 1020 overlap; 2000 to 2010 stands apart: 20 + 10 seconds.
    assert view.tasks[0].hours == pytest.approx(30 / 3600)
    assert view.tasks[0].tokens_per_second == pytest.approx(300 / 30)


def test_an_unfinished_run_says_so(view):
    assert not view.is_finished
    assert view.tasks[0].n_planned == 4
    assert "1 request is still to be sent" in view.tasks[0].cautions


def test_the_manifest_is_put_into_words(view):
    assert view.summary == (
        "google/gemma-4-31B-it, run by vllm 0.23.1 in bfloat16, thinking on. Sampled at "
        "temperature 1, top-p 0.95, top-k 64, at most 65,536 tokens an answer, run seed 3."
    )
    facts = {fact.label: fact for section in view.facts.values() for fact in section}
    assert facts["Weights, SHA-256"].value == "5d5d5d5d5d5d5d5d…"
    assert facts["Numbers"].note == "declared by the user"
    assert facts["Concurrency"].value == "8"


def test_pass_at_k_is_left_out_where_a_sample_lacks_repeats(view):
    assert [metric.name for metric in view.tasks[0].metrics] == []


def test_the_targets_and_prompts_of_a_gated_task_are_not_in_the_store(tmp_path):
    view = view_run(make_run(tmp_path / "r1", plan={**PLAN, "gated": True}))
    texts = next(view.read_texts("aime26"))
    assert texts.target is None
    assert texts.repeats[0].prompt is None
    assert view.tasks[0].is_gated


def test_another_livecodebench_window_is_held_against_v6_and_found_not_comparable(tmp_path):
    plan = {
        **PLAN,
        "family": "livecodebench",
        "published_as": None,
        "settings": {"release": "v6", "start_date": "2024-08-01", "platform": None},
        "n_selected": 454,
        "rows_stated": 1055,
    }
    folder = make_run(tmp_path / "r1", plan=plan)
    with RunReader(folder) as run:
        (result,) = reproduce_run(run, summarise(run))
    assert result.verdict == "not comparable"
    assert any(
        reason.startswith("another question set: release v6, start date 2024-08-01 (454 samples)")
        for reason in result.reasons
    )


def test_a_model_that_nobody_published_is_not_compared(tmp_path):
    facts = EngineFacts(engine="vllm", engine_version="1", model="someone/else")
    folder = make_run(tmp_path / "r1", facts=facts)
    with RunReader(folder) as run:
        (result,) = reproduce_run(run, summarise(run))
    assert result.published is None
    assert result.reasons == ("no score of else on this task was published",)


def test_the_gates_decisions_in_the_folder_are_read(tmp_path):
    folder = make_run(tmp_path / "r1")
    for name, verdict in (("verdict.json", "PASS"), ("verdict-other.json", "FAIL")):
        (folder / name).write_text(json.dumps(verdict_record(verdict, "base").as_json()))
    assert [v.verdict for v in view_run(folder).gate_verdicts] == [
        "FAIL",
        "PASS",
    ]
