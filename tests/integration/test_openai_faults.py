"""Engine `openai` against a real server on the loopback interface that misbehaves on purpose."""

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import pytest

from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.errors import ConfigError, EngineError
from g4eval.records import Attempt, Completion, StopReason, Thought
from tests.driving import answers, collect, complete_all, make_request, run
from tests.http_server import Handler, HttpRequest, HttpServer, Reply

QUICK: dict[str, Any] = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.02, "max_retries": 3}
KEY = "sk-invented-0123456789"


async def ask(
    handler: Handler,
    *prompts: str,
    models: list[dict[str, Any]] | None = None,
    sampling: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[Completion | Attempt], HttpServer]:
    async with HttpServer(handler, models=models) as server:
        engine = OpenAIEngine(
            OpenAIOptions(**{**QUICK, **options}),
            model="tiny",
            base_url=server.base_url,
            api_key=KEY,
        )
        requests = [make_request(p, number=i, **(sampling or {})) for i, p in enumerate(prompts)]
        async with engine:
            results = await complete_all(engine, requests)
    return [results[i] for i in range(len(prompts))], server


def ask_one(handler: Handler, **options: Any) -> Completion | Attempt:
    return run(ask(handler, "question", **options))[0][0]


def completion_of(handler: Handler, **options: Any) -> Completion:
    result = ask_one(handler, **options)
    assert isinstance(result, Completion), result
    return result


def attempt_of(handler: Handler, **options: Any) -> Attempt:
    result = ask_one(handler, **options)
    assert isinstance(result, Attempt), result
    return result


class FailsFirst:
    """A handler that fails `times` tries of each prompt, then answers `fine`."""

    def __init__(self, fail: Handler, *, times: int) -> None:
        self._fail = fail
        self._times = times
        self.tries: Counter[str] = Counter()

    async def __call__(self, request: HttpRequest, reply: Reply) -> None:
        self.tries[request.prompt] += 1
        if self.tries[request.prompt] <= self._times:
            await self._fail(request, reply)
        else:
            await reply.answer("fine")


async def fine(request: HttpRequest, reply: Reply) -> None:
    await reply.answer("fine")


async def cut_stream(request: HttpRequest, reply: Reply) -> None:
    await reply.start_stream()
    await reply.delta("half an ans")


async def html_page(request: HttpRequest, reply: Reply) -> None:
    await reply.send(b"<html><h1>Welcome to the proxy</h1></html>", media_type="text/html")


async def storm(request: HttpRequest, reply: Reply) -> None:
    await reply.error(500, "out of memory")


# --- answers that arrive ---


def test_a_streamed_answer_is_put_together_in_order() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        for piece in ("The ans", "wer is", " 4."):
            await reply.delta(piece)
        await reply.delta(finish_reason="stop", usage={"prompt_tokens": 9, "completion_tokens": 5})
        await reply.end_stream()

    completion = completion_of(handler)
    assert completion.text == "The answer is 4."
    assert completion.stop_reason is StopReason.STOP
    assert (completion.prompt_tokens, completion.completion_tokens) == (9, 5)


def test_every_sampling_parameter_and_the_seed_are_sent() -> None:
    _, server = run(
        ask(
            fine,
            "hello",
            sampling={"temperature": 0.5, "top_p": 0.9, "top_k": 0, "stop": ("###",)},
        )
    )
    body = server.requests[0].body
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    sent = {k: body[k] for k in ("temperature", "top_p", "top_k", "min_p", "seed", "stop")}
    assert sent == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "seed": 7,
        "stop": ["###"],
    }
    assert body["repetition_penalty"] == 1.0
    assert body["max_tokens"] == 16


def test_a_field_the_server_refuses_can_be_left_out() -> None:
    _, server = run(ask(fine, "hello", omit=("top_k", "min_p")))
    assert not {"top_k", "min_p"} & set(server.requests[0].body)


def test_a_server_that_does_not_stream_is_read_as_one_body() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        message = {"content": "whole", "reasoning_content": "let me think"}
        await reply.json({"choices": [{"message": message, "finish_reason": "stop"}]})

    completion = completion_of(handler, stream=False)
    assert (completion.text, completion.reasoning) == ("whole", "let me think")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_the_servers_reasoning_field_is_kept_apart(name: str) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.delta(**{name: "two and "})
        await reply.delta(**{name: "two"})
        await reply.delta("4")
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    completion = completion_of(handler)
    assert (completion.text, completion.reasoning) == ("4", "two and two")
    assert completion.thought is Thought.CLOSED


def test_reasoning_alone_cut_by_the_budget_is_a_thought_that_never_ended() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.delta(reasoning="it might be 5 or")
        await reply.delta(finish_reason="length")
        await reply.end_stream()

    completion = completion_of(handler)
    assert (completion.text, completion.thought) == ("", Thought.OPEN)
    assert completion.stop_reason is StopReason.LENGTH


def test_an_answer_of_ten_megabytes_arrives_whole_and_soon() -> None:
    whole = "0123456789" * 2**20

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        if request.prompt == "one event":
            await reply.delta(whole)
        else:
            for start in range(0, len(whole), 1000):
                await reply.delta(whole[start : start + 1000])
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    started = time.monotonic()
    results, _ = run(ask(handler, "one event", "many events"))
    assert [r.text == whole for r in results if isinstance(r, Completion)] == [True, True]
    assert time.monotonic() - started < 10


def test_a_missing_finish_reason_counts_as_stop() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.delta("done")
        await reply.end_stream()

    assert completion_of(handler).stop_reason is StopReason.STOP


def test_a_missing_finish_reason_with_the_budget_used_up_counts_as_length() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.delta("done", usage={"prompt_tokens": 3, "completion_tokens": 16})
        await reply.end_stream()

    assert completion_of(handler).stop_reason is StopReason.LENGTH


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 17},  # the budget is 16
        {"prompt_tokens": "many", "completion_tokens": 2.5},
        {"prompt_tokens": 0, "completion_tokens": 0},  # and yet there is a text
        {"prompt_tokens": None, "completion_tokens": True},
    ],
)
def test_counts_that_cannot_be_right_become_unknown(usage: dict[str, Any]) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("some text", usage=usage)

    completion = completion_of(handler)
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, None)


def test_token_ids_win_over_a_wrong_count() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.event({"prompt_token_ids": [1, 2, 3], "choices": []})
        await reply.delta("a b", token_ids=[11, 12])
        usage = {"prompt_tokens": 99, "completion_tokens": 1}
        await reply.delta(token_ids=[13], finish_reason="stop", usage=usage)
        await reply.end_stream()

    completion = completion_of(handler)
    assert (completion.prompt_token_ids, completion.token_ids) == ([1, 2, 3], [11, 12, 13])
    assert (completion.prompt_tokens, completion.completion_tokens) == (3, 3)


def test_token_ids_with_a_gap_are_not_kept() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("a b", token_ids=[11, 12], usage={"completion_tokens": 3})

    completion = completion_of(handler)
    assert (completion.token_ids, completion.completion_tokens) == (None, 3)


# --- silence and slowness ---


def test_a_queue_longer_than_its_timeout_is_tried_again() -> None:
    async def silent(request: HttpRequest, reply: Reply) -> None:
        await asyncio.sleep(40 * 60)

    handler = FailsFirst(silent, times=1)
    assert completion_of(handler, queue_timeout_seconds=0.2).text == "fine"
    assert handler.tries["question"] == 2


def test_silence_in_the_middle_of_a_stream_is_a_broken_connection() -> None:
    async def stalls(request: HttpRequest, reply: Reply) -> None:
        await cut_stream(request, reply)
        await asyncio.sleep(40 * 60)

    attempt = attempt_of(stalls, idle_timeout_seconds=0.1, max_retries=1)
    assert attempt.error == "no byte for 0.1 s"


def test_a_slow_stream_is_never_timed_out_as_long_as_data_comes() -> None:
    async def slow(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        for piece in ["one", "token", "an", "hour"]:
            await asyncio.sleep(0.2)
            await reply.delta(piece + " ")
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    started = time.monotonic()
    assert completion_of(slow, idle_timeout_seconds=0.6).text == "one token an hour "
    assert time.monotonic() - started > 0.6


def test_comments_and_keep_alives_before_the_first_byte_are_the_queue() -> None:
    async def queued(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        for _ in range(6):
            await reply.raw(b": still here\n\n")
            await reply.event(None)
            await asyncio.sleep(0.1)
        await reply.delta("fine")
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    assert completion_of(queued, idle_timeout_seconds=0.3).text == "fine"
    attempt = attempt_of(queued, queue_timeout_seconds=0.2, max_retries=0)
    assert attempt.error == "no first byte for 0.2 s"


@pytest.mark.parametrize("keep_alive", [b": still here\n\n", b"data: null\n\n", b"data:\n\n"])
def test_comments_and_keep_alives_after_the_first_byte_are_silence(keep_alive: bytes) -> None:
    async def stalls(request: HttpRequest, reply: Reply) -> None:
        await cut_stream(request, reply)
        while True:
            await reply.raw(keep_alive)
            await asyncio.sleep(0.05)

    attempt = attempt_of(stalls, idle_timeout_seconds=0.3, max_retries=0)
    assert attempt.error == "no byte for 0.3 s"


def test_a_queue_in_front_of_a_server_that_answers_no_health_request_ends_at_once() -> None:
    async def dead(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models":
            await reply.json({"data": [{"id": "tiny"}]})
        elif request.method == "GET" and request.path != "/health":
            await reply.error(404, "Not Found")
        else:
            await asyncio.sleep(40 * 60)

    attempt = attempt_of(dead, models=[], idle_timeout_seconds=0.3, max_retries=0)
    assert attempt.error == "no byte, and no answer to a health request, for 0.3 s"


def test_an_answer_that_does_not_stream_has_the_queue_clock_alone() -> None:
    async def whole(request: HttpRequest, reply: Reply) -> None:
        await asyncio.sleep(0.6)
        await reply.json({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]})

    assert completion_of(whole, stream=False, idle_timeout_seconds=0.3).text == "fine"


# --- failures that pass ---


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 529])
def test_a_failure_of_the_server_is_tried_again(status: int) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.error(status, "not now")

    handler = FailsFirst(fail, times=3)
    assert completion_of(handler).text == "fine"
    assert handler.tries["question"] == 4


@pytest.mark.parametrize("fail", [cut_stream, html_page], ids=["cut stream", "HTML"])
def test_a_broken_answer_is_tried_again_and_nothing_of_it_is_kept(fail: Handler) -> None:
    assert completion_of(FailsFirst(fail, times=2)).text == "fine"


def test_a_stream_that_ends_politely_without_its_end_mark_is_cut() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await cut_stream(request, reply)
        await reply.end_stream(done=False)

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"
    assert attempt_of(fail).error == "the stream was cut before its end"


def test_an_error_inside_a_stream_is_tried_again() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await cut_stream(request, reply)
        await reply.event({"error": {"message": "EngineCore died", "code": 500}})
        await reply.end_stream()

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"
    assert attempt_of(fail).error == "error in the answer: EngineCore died"


def test_a_server_that_gives_up_a_request_itself_is_asked_again() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("half", finish_reason="abort")

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"


def test_retry_after_is_waited_out() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.error(429, "slow down", Retry_After="0.3")

    started = time.monotonic()
    assert completion_of(FailsFirst(fail, times=2)).text == "fine"
    assert time.monotonic() - started > 0.6


def test_being_rate_limited_more_often_than_max_retries_loses_nothing() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.error(429, "slow down")

    handler = FailsFirst(fail, times=9)
    assert completion_of(handler, max_retries=1).text == "fine"


def test_concurrency_follows_what_the_server_takes() -> None:
    most, refused = 4, 0

    async def handler(request: HttpRequest, reply: Reply) -> None:
        nonlocal refused
        if server_of["server"].n_open > most:
            refused += 1
            await reply.error(429, "too many")
            return
        await asyncio.sleep(0.01)
        await reply.answer("fine")

    server_of: dict[str, HttpServer] = {}

    async def main() -> int:
        async with HttpServer(handler) as server:
            server_of["server"] = server
            options = OpenAIOptions(**{**QUICK, "concurrency": 64})
            async with OpenAIEngine(options, model="tiny", base_url=server.base_url) as engine:
                results = await complete_all(engine, (make_request(number=i) for i in range(400)))
        return sum(isinstance(r, Completion) for r in results.values())

    assert run(main()) == 400
    assert refused < 400  # 64 at once without adapting would be refused again and again


# --- failures that stay ---


def test_one_request_that_always_fails_stops_no_other() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await (storm if request.prompt == "poison" else fine)(request, reply)

    prompts = ["poison" if i == 3 else "question" for i in range(20)]
    results, _ = run(ask(handler, *prompts, concurrency=2))
    assert [i for i, r in enumerate(results) if isinstance(r, Attempt)] == [3]
    assert isinstance(results[3], Attempt)
    assert results[3].error == "HTTP 500: out of memory"


def test_a_request_the_server_refuses_is_not_sent_again() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(400, "maximum context length is 8 tokens")

    results, server = run(ask(handler, "too long"))
    assert isinstance(results[0], Attempt)
    assert results[0].error == "HTTP 400: maximum context length is 8 tokens"
    assert len(server.requests) == 1


def test_a_storm_of_failures_ends_the_run_instead_of_burning_through_it() -> None:
    taken = []

    def requests():
        for number in range(1000):
            taken.append(number)
            yield make_request(number=number)

    async def main() -> None:
        async with HttpServer(storm) as server:
            options = OpenAIOptions(**QUICK, concurrency=4, give_up_after=10)
            async with OpenAIEngine(options, model="tiny", base_url=server.base_url) as engine:
                await collect(engine, requests(), into=results)

    results: list[Completion | Attempt] = []
    with pytest.raises(EngineError, match="10 requests failed in a row") as caught:
        run(main())
    assert caught.value.exit_code == 5
    assert 9 <= len(results) <= 13
    assert len(taken) <= 14


def test_a_refused_key_stops_before_the_first_request() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(401, f"Incorrect API key provided: {KEY}")

    with pytest.raises(EngineError, match="HTTP 401") as caught:
        ask_one(handler, models=[])
    assert "G4EVAL_API_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_refused_in_mid_run_stops_the_engine() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(401, f"Incorrect API key provided: {KEY}")

    with pytest.raises(EngineError, match=r"HTTP 401: Incorrect API key provided: \*\*\*"):
        ask_one(handler)


def test_no_credit_left_is_not_waited_out() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        error = {"message": "You exceeded your quota", "code": "insufficient_quota"}
        await reply.json({"error": error}, status=429)

    with pytest.raises(EngineError, match="You exceeded your quota"):
        ask_one(handler)


def test_a_model_the_server_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(EngineError, match="no model 'tiny'") as caught:
        ask_one(fine, models=[{"id": "tiny-it"}, {"id": "other"}])
    assert "did you mean tiny-it?" in str(caught.value)


def test_a_model_that_vanishes_stops_the_engine() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(404, "The model `tiny` does not exist.")

    with pytest.raises(EngineError, match="does not exist") as caught:
        ask_one(handler)
    assert "--model" in str(caught.value)


def test_an_address_that_serves_web_pages_is_said_to_be_one() -> None:
    with pytest.raises(EngineError, match="HTML, not JSON") as caught:
        ask_one(html_page, models=[])
    assert "--base-url" in str(caught.value)


def test_nobody_listening_is_said_at_once() -> None:
    engine = OpenAIEngine(
        OpenAIOptions(first_wait_seconds=30), model="tiny", base_url="http://127.0.0.1:9/v1"
    )

    async def main() -> None:
        async with engine:
            pass

    with pytest.raises(EngineError, match="can't connect") as caught:
        run(main(), within_seconds=5)
    assert "start the server" in str(caught.value)


def test_a_server_that_dies_in_mid_run_is_retried_then_ends_the_engine() -> None:
    async def main() -> None:
        async with HttpServer(fine) as server:
            options = OpenAIOptions(**QUICK, concurrency=2)
            async with OpenAIEngine(options, model="tiny", base_url=server.base_url) as engine:
                requests = (make_request(number=i) for i in range(50))
                await collect(engine, requests, into=results, after=5, then=server.__aexit__)

    results: list[Completion | Attempt] = []
    with pytest.raises(EngineError, match="can't connect"):
        run(main())
    assert 5 <= len(results) < 50
    assert all(isinstance(r, Completion) for r in results)


def test_a_server_that_comes_back_in_time_costs_nothing() -> None:
    async def main() -> None:
        async with HttpServer(fine) as server:
            again = HttpServer(fine, port=server.port)

            async def restart() -> None:
                await server.__aexit__()
                asyncio.get_running_loop().call_later(
                    0.3, lambda: tasks.append(asyncio.ensure_future(again.__aenter__()))
                )

            options = OpenAIOptions(
                concurrency=2, max_retries=20, first_wait_seconds=0.05, longest_wait_seconds=0.05
            )
            async with OpenAIEngine(options, model="tiny", base_url=server.base_url) as engine:
                requests = (make_request(number=i) for i in range(30))
                await collect(engine, requests, into=results, after=5, then=restart)
            await again.__aexit__()

    tasks: list[asyncio.Future[HttpServer]] = []
    results: list[Completion | Attempt] = []
    run(main())
    assert [type(r) for r in results] == [Completion] * 30


# --- what is kept secret ---


def test_key_and_password_reach_the_server_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(500, f"bad {request.headers['authorization']} {request.query} hunter2")

    async def main() -> tuple[str, list[HttpRequest]]:
        async with HttpServer(handler) as server:
            host = f"127.0.0.1:{server.port}/v1"
            engine = OpenAIEngine(
                OpenAIOptions(**QUICK),
                model="tiny",
                base_url=f"http://ann:hunter2@{host}?key=querysecret",
                api_key=KEY,
            )
            async with engine:
                facts = engine.describe()
                results = await complete_all(engine, [make_request()])
        return f"{facts} {facts.identity()} {results} {engine!r} {caplog.text}", server.requests

    said, requests = run(main())
    assert "HTTP 500: bad" in said
    for secret in (KEY, "hunter2", "querysecret", "ann:"):
        assert secret not in said
    assert requests[0].query == "key=querysecret"
    assert requests[0].headers["authorization"].startswith("Basic ")


def test_the_key_is_sent_as_a_bearer_token() -> None:
    _, server = run(ask(fine, "hello"))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_an_address_without_scheme_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIEngine(OpenAIOptions(), model="tiny", base_url="ann:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


# --- facts ---


def test_facts_nobody_declared_are_unknown_and_the_address_stands_for_them() -> None:
    async def main() -> tuple[Any, str]:
        async with HttpServer(fine) as server:
            options = OpenAIOptions(quantization="fp8")
            engine = OpenAIEngine(options, model="tiny", base_url=server.base_url)
            async with engine:
                return engine.describe(), server.base_url

    facts, address = run(main())
    assert (facts.weights_fingerprint, facts.dtype) == ("unknown", "unknown")
    assert (facts.quantization, facts.declared) == ("fp8", ("quantization",))
    assert facts.server_address == address


def test_a_vllm_server_is_recognised_and_asked_for_token_ids_and_special_tokens() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models":
            row = {"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}
            await reply.json({"data": [row]})
        elif request.path == "/version":
            await reply.json({"version": "0.25.0"})
        else:
            assert request.body["return_token_ids"] is True
            assert request.body["skip_special_tokens"] is False
            await reply.answer("<|channel>thought\nhm<channel|>4")

    async def main() -> Any:
        async with HttpServer(handler, models=[]) as server:
            engine = OpenAIEngine(OpenAIOptions(), model="tiny", base_url=server.base_url)
            async with engine:
                return engine.describe(), await complete_all(engine, [make_request()])

    facts, results = run(main())
    assert (facts.engine_version, facts.context_tokens) == ("vllm 0.25.0", 4096)
    assert (results[0].text, results[0].reasoning) == ("4", "hm")


def test_a_declaration_the_server_contradicts_is_refused() -> None:
    models = [{"id": "tiny", "max_model_len": 4096}]
    with pytest.raises(ConfigError, match="declared as 8192, and the server says 4096"):
        ask_one(fine, models=models, context_tokens=8192)


def test_a_budget_past_the_end_of_vllms_context_is_cut_to_what_is_left() -> None:
    budgets = []

    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models":
            row = {"id": "tiny", "owned_by": "vllm", "max_model_len": 100}
            await reply.json({"data": [row]})
        elif request.path == "/tokenize":
            await reply.json({"count": 30})
        elif request.path == "/version":
            await reply.json({"version": "0.25.0"})
        else:
            budgets.append(request.body["max_tokens"])
            await reply.answer("fine")

    run(ask(handler, "hello", models=[], sampling={"max_new_tokens": 90}))
    run(ask(handler, "hello", models=[], sampling={"max_new_tokens": 5}))
    assert budgets == [70, 5]


def test_completions_send_plain_text_and_have_no_template() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        assert request.path == "/v1/completions"
        assert request.body["prompt"] == "question"
        await reply.json({"choices": [{"text": "plain", "finish_reason": "length"}]})

    completion = completion_of(handler, api="completions")
    assert (completion.text, completion.stop_reason) == ("plain", StopReason.LENGTH)


def test_nothing_is_left_running_when_the_iterator_is_closed() -> None:
    async def slow(request: HttpRequest, reply: Reply) -> None:
        if request.prompt == "quick":
            await asyncio.sleep(0.2)
            await reply.answer("fine")
        else:
            await reply.start_stream()
            while True:
                await reply.delta("so ")
                await asyncio.sleep(0.01)

    async def main() -> tuple[int, int]:
        async with HttpServer(slow) as server:
            engine = OpenAIEngine(OpenAIOptions(), model="tiny", base_url=server.base_url)
            async with engine:
                prompts = ["quick", *["slow"] * 8]
                requests = (make_request(p, number=i) for i, p in enumerate(prompts))
                answered = answers(requests, engine)
                async for _ in answered:
                    break
                before = server.n_open
                await answered.aclose()
                await asyncio.sleep(0.2)
                return before, server.n_open

    assert run(main()) == (8, 0)
