"""The gemma engine behind the Engine protocol, on a tiny checkpoint."""

import asyncio
import json
import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.base import EngineConfig, ScoringEngine  # noqa: E402
from g4eval.engines.gemma.engine import GemmaEngine  # noqa: E402
from g4eval.errors import ConfigError, EngineError  # noqa: E402
from g4eval.records import Attempt, Chat, Message, Request, StopReason, Thought  # noqa: E402
from tests.driving import answers  # noqa: E402


@pytest.fixture
def folder(make_tiny, add_tokenizer):
    tiny = make_tiny("ple_shared_kv", shake=True)
    add_tokenizer(tiny.folder)
    return tiny.folder


def engine_of(folder, **options):
    options = {"memory_gib": 1, "threads": 1} | options
    return GemmaEngine.configure(EngineConfig(model=str(folder), options=options))


def request_of(number, text="Hello", **sampling):
    sampling = {"max_new_tokens": 8} | sampling
    return Request(
        key=f"key{number}",
        task_id="t",
        task_version=1,
        sample_id=f"s{number}",
        repeat=0,
        prompt=Chat((Message(role="user", content=text),)),
        sampling=SamplingParams(**sampling),
        seed=number,
    )


def complete(folder, requests, **options):
    async def run():
        async with engine_of(folder, **options) as engine:
            return [c async for c in answers(requests, engine)]

    return asyncio.run(run())


def test_every_request_gets_its_completion_with_ids_and_counts(folder):
    done = complete(folder, [request_of(i, "Hi " * i) for i in range(1, 6)], max_batch=2)
    assert sorted(c.key for c in done) == [f"key{i}" for i in range(1, 6)]
    for completion in done:
        assert len(completion.token_ids) == completion.completion_tokens <= 8
        assert completion.prompt_tokens == len(completion.prompt_token_ids)
        assert completion.prompt_token_ids[0] == 2
        assert 0 < completion.started_at <= completion.finished_at


def test_tokens_depend_on_the_seed_and_not_on_the_neighbours(folder):
    requests = [request_of(i, "Hi " * i, max_new_tokens=20) for i in range(16)]
    together = {c.key: c.token_ids for c in complete(folder, requests)}
    alone = {c.key: c.token_ids for r in requests[::5] for c in complete(folder, [r])}
    assert alone == {key: together[key] for key in alone}
    assert len(set(together.values())) > 10


def test_a_budget_used_up_is_length_and_a_stop_id_is_stop(folder):
    (cut,) = complete(folder, [request_of(1, max_new_tokens=3)])
    assert cut.stop_reason is StopReason.LENGTH
    config = folder / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": [1, cut.token_ids[1]]}))
    (stopped,) = complete(folder, [request_of(1, max_new_tokens=3)])
    assert stopped.stop_reason is StopReason.STOP
    assert stopped.token_ids == cut.token_ids[:2]


def test_suppressed_tokens_of_the_checkpoint_are_kept_out(folder):
    (free,) = complete(folder, [request_of(1, temperature=0)])
    config = {"eos_token_id": 1, "suppress_tokens": [free.token_ids[0]]}
    (folder / "generation_config.json").write_text(json.dumps(config))
    (held,) = complete(folder, [request_of(1, temperature=0)])
    assert free.token_ids[0] not in held.token_ids


def test_a_prompt_longer_than_the_context_fails_alone(folder):
    done = complete(
        folder, [request_of(1, "x" * 100), request_of(2)], context_tokens=64, max_batch=1
    )
    failed = next(c for c in done if isinstance(c, Attempt))
    assert failed.key == "key1"
    assert failed.error == "the prompt of 101 tokens fills the context of 64"
    assert any(c.key == "key2" and not isinstance(c, Attempt) for c in done)


def test_the_context_cuts_a_budget(folder):
    (done,) = complete(folder, [request_of(1, max_new_tokens=500)], context_tokens=32)
    assert done.prompt_tokens + done.completion_tokens <= 32


def test_a_thought_that_never_closes_is_open(folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (done,) = complete(folder, [request_of(1)], thinking=True)
    assert done.thought is Thought.OPEN


def test_cancelling_one_answer_frees_its_slot_and_disturbs_no_other(folder):
    """With one slot the second request waits; with two it is in the batch. Others go on."""

    async def cancel(max_batch):
        async with engine_of(folder, max_batch=max_batch) as engine:
            first, second, third = (
                asyncio.create_task(engine.answer(request_of(i, max_new_tokens=40)))
                for i in (1, 2, 3)
            )
            await asyncio.sleep(0.05)
            second.cancel()
            done = await asyncio.gather(first, second, third, return_exceptions=True)
            scheduler = engine._ready.scheduler
            assert scheduler.is_idle
            return done

    alone = {c.key: c.token_ids for c in complete(folder, [request_of(1, max_new_tokens=40)])}
    for max_batch in (1, 2, 3):
        first, second, third = asyncio.run(cancel(max_batch))
        assert first.token_ids == alone["key1"]
        assert isinstance(second, asyncio.CancelledError)
        assert third.key == "key3"


def test_a_batch_is_full_again_before_the_next_step(folder):
    """A request that ends is followed by the next one in the very next forward pass."""

    async def run():
        async with engine_of(folder, max_batch=4) as engine:
            scheduler, rows = engine._ready.scheduler, []
            step = scheduler.step

            def counted():
                rows.append(len(scheduler._active))
                return step()

            engine._ready.stepper._scheduler = Counting(scheduler, counted)
            requests = [request_of(i, max_new_tokens=1 + i % 5) for i in range(24)]
            async for _ in answers(requests, engine):
                pass
            return rows

    class Counting:
        def __init__(self, scheduler, step):
            self._scheduler, self.step = scheduler, step

        def __getattr__(self, name):
            return getattr(self._scheduler, name)

    rows = asyncio.run(run())
    full = max(i for i, n in enumerate(rows) if n == 4)
    assert rows[: full + 1] == [4] * (full + 1)


def test_a_forward_pass_that_fails_ends_every_answer_and_not_the_engine(folder, monkeypatch):
    async def run():
        async with engine_of(folder) as engine:
            scheduler = engine._ready.scheduler
            step = type(scheduler).step
            with monkeypatch.context() as patch:
                patch.setattr(type(scheduler), "step", lambda _: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    await engine.answer(request_of(1))

                def out_of_memory(self):
                    raise torch.OutOfMemoryError("no memory")

                patch.setattr(type(scheduler), "step", out_of_memory)
                failed = await asyncio.gather(
                    *(engine.answer(request_of(i)) for i in range(3)), return_exceptions=True
                )
            assert type(scheduler).step is step
            return failed, await engine.answer(request_of(1))

    failed, done = asyncio.run(run())
    assert [type(error) for error in failed] == [EngineError] * 3
    assert "a forward pass failed: no memory" in str(failed[0])
    assert done.key == "key1"


def test_scores_are_those_of_the_completions_own_tokens(folder):
    async def run():
        async with engine_of(folder) as engine:
            scoring: ScoringEngine = engine
            done = await engine.answer(request_of(1, temperature=0))
            ids = [*done.prompt_token_ids, *done.token_ids]
            return len(done.token_ids), ids, await scoring.score(ids, top_k=3)

    generated, ids, scores = asyncio.run(run())
    assert len(scores.logprobs) == len(ids) - 1
    # Greedy: every generated token is the most likely one at its place.
    assert [row[0] for row in scores.top_ids[-generated:]] == ids[-generated:]
    for row, logprob in zip(
        scores.top_logprobs[-generated:], scores.logprobs[-generated:], strict=True
    ):
        assert row[0] == pytest.approx(logprob, abs=1e-6)
        assert row[0] >= row[1] >= row[2]
        assert sum(map(math.exp, row)) < 1


@pytest.mark.parametrize(
    ("ids", "words"),
    [([2], "1 tokens can't be scored"), ([2, 300], "token id 300 is outside the 300 known")],
)
def test_tokens_that_cant_be_scored_are_refused(ids, words, folder):
    async def run():
        async with engine_of(folder) as engine:
            await engine.score(ids)

    with pytest.raises(ConfigError, match=words):
        asyncio.run(run())


def test_facts_name_what_can_move_a_score(folder):
    async def run(**options):
        async with engine_of(folder, **options) as engine:
            return engine.describe()

    facts = asyncio.run(run())
    assert (facts.engine, facts.dtype, facts.quantization) == ("gemma", "float32", "none")
    assert facts.chat_template_hash == "none"
    assert facts.context_tokens == 4096
    assert facts.operation["batch_invariance"] == "exact"
    assert asyncio.run(run(max_batch=3)).fingerprint == facts.fingerprint
    assert asyncio.run(run(dtype="bfloat16")).fingerprint != facts.fingerprint
    (folder / "generation_config.json").write_text("{}")
    assert asyncio.run(run()).weights_fingerprint != facts.weights_fingerprint
    declared = asyncio.run(run(weights_fingerprint="abc"))
    assert (declared.weights_fingerprint, declared.declared) == ("abc", ("weights_fingerprint",))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bach": 3}, "'engine.bach' is not a known key"), ({"max_batch": 0}, "engine.max_batch: 0")],
)
def test_options_that_are_off_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        GemmaEngine.configure(EngineConfig(model="x", options=options))


def test_a_model_that_isnt_there_is_refused():
    with pytest.raises(EngineError, match="neither a folder, a GGUF file nor a hub id"):
        complete("./nowhere", [])


def test_an_answer_still_awaited_as_the_engine_closes_is_told_and_it_can_be_entered_again(folder):
    async def run():
        engine = engine_of(folder)
        async with engine:
            first = await engine.answer(request_of(2, max_new_tokens=2))
            late = asyncio.create_task(engine.answer(request_of(1, max_new_tokens=2000)))
            await asyncio.sleep(0.05)
        with pytest.raises(EngineError, match="closed before the request was done"):
            await late
        async with engine:
            return first, await engine.answer(request_of(2, max_new_tokens=2))

    first, again = asyncio.run(run())
    assert again.token_ids == first.token_ids


def test_its_fingerprint_is_what_it_was_when_runs_were_stored_under_it(folder, monkeypatch):
    """As in tests/unit/engines/test_identity.py, for the facts of this engine."""
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("g4eval.engines.gemma.engine.is_batch_invariant", lambda _: True)

    async def facts():
        options = {"memory_gib": 1, "threads": 1, "weights_fingerprint": "w" * 64}
        config = EngineConfig(model=folder.name, options=options)
        async with GemmaEngine.configure(config) as engine:
            return engine.describe()

    known = "2bb2ce099f440de3213f6870412c7b863ecf24ecd6bc17737a5355ffb47c8c13"
    assert asyncio.run(facts()).fingerprint == known
