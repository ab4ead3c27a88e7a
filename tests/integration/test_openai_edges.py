"""What servers send that isn't what OpenAI sends: taken where it is an answer, never where not."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from g4eval.engines import openai_stream, server_bodies, server_connection
from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.errors import EngineError
from g4eval.records import Attempt, Completion, StopReason
from tests.driving import complete_all, make_request, run
from tests.http_server import Handler, HttpRequest, HttpServer, Reply
from tests.integration.test_openai_faults import (
    QUICK,
    FailsFirst,
    ask,
    attempt_of,
    completion_of,
    fine,
)

BIG = 10**40


async def send_events(reply: Reply, *events: Any, done: bool = True) -> None:
    await reply.start_stream()
    for event in events:
        await reply.event(event)
    await reply.end_stream(done=done)


def chunk(content: Any = None, *, index: int | None = 0, **choice: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    place = {} if index is None else {"index": index}
    return {"choices": [{**place, "delta": delta, **choice}]}


# --- A: a 200 that holds no completion ---

NO_COMPLETIONS: dict[str, list[Any]] = {
    "done only": [],
    "flat error": [{"object": "error", "message": "EngineCore died", "code": 500}],
    "choices empty": [{"id": "x", "choices": []}],
    "choices null": [{"id": "x", "choices": None, "usage": None}],
    "status and message": [{"status": 503, "message": "The request queue is full"}],
    "detail": [{"detail": "upstream connect error"}],
    "another choice": [chunk("nonsense", index=1, finish_reason="stop")],
    "an empty delta": [chunk()],
    "errors": [{"errors": [{"msg": "worker lost"}]}],
    "an error in the choice": [{"choices": [{"error": {"code": 502}, "delta": {"content": ""}}]}],
    "usage alone": [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}],
}


@pytest.mark.parametrize("name", NO_COMPLETIONS)
def test_a_stream_that_holds_no_completion_is_tried_again(name: str) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await send_events(reply, *NO_COMPLETIONS[name])

    assert completion_of(FailsFirst(fail, times=2)).text == "fine"
    assert isinstance(attempt_of(fail, max_retries=1), Attempt)


@pytest.mark.parametrize("name", [name for name in NO_COMPLETIONS if name != "done only"])
def test_a_body_that_holds_no_completion_is_tried_again(name: str) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.json(NO_COMPLETIONS[name][0])

    assert completion_of(FailsFirst(fail, times=2), stream=False).text == "fine"


def test_only_the_first_choice_is_the_answer() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(
            reply,
            chunk("one"),
            chunk(" other", index=1),
            {"choices": [{"delta": {"content": " two"}}, {"delta": {"content": " second"}}]},
            chunk(finish_reason="stop"),
            chunk(index=1, finish_reason="length"),
        )

    completion = completion_of(handler)
    assert (completion.text, completion.stop_reason) == ("one two", StopReason.STOP)


def test_an_end_mark_alone_is_no_end_where_the_server_says_more_of_its_other_answers() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.prompt == "dies":
            await send_events(reply, chunk("First, let x = 7. Then we"))
        else:
            await fine(request, reply)

    (first, second), _ = run(ask(handler, "lives", "dies", concurrency=1, max_retries=2))
    assert isinstance(first, Completion)
    assert isinstance(second, Attempt)
    assert second.error == "the stream ended without a finish reason and without usage"


def test_an_end_mark_alone_is_asked_for_twice_before_it_is_believed() -> None:
    async def wordless(request: HttpRequest, reply: Reply) -> None:
        await send_events(reply, chunk("half an"))

    handler = FailsFirst(wordless, times=1)
    assert completion_of(handler).text == "fine"
    assert completion_of(wordless).text == "half an"


# --- H: finish words ---


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("eos_token", StopReason.STOP),
        ("end_turn", StopReason.STOP),
        ("function_call", StopReason.STOP),
        ("STOP", StopReason.STOP),
        ("model_length", StopReason.LENGTH),
        ("MAX_TOKENS", StopReason.LENGTH),
        ("repetition", StopReason.LENGTH),
        ("SAFETY", StopReason.FILTERED),
        ("content_filter", StopReason.FILTERED),
    ],
)
def test_a_word_of_the_tables_is_known_at_once(word: str, reason: StopReason) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("text", finish_reason=word)

    results, server = run(ask(handler, "question"))
    assert isinstance(results[0], Completion)
    assert (results[0].stop_reason, results[0].finish_word) == (reason, None)
    assert len(server.requests) == 1


@pytest.mark.parametrize("word", ["abort", "error", "cancelled", "timeout", "network_error"])
def test_a_word_of_failure_is_never_an_answer(word: str) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("half", finish_reason=word)

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"
    assert attempt_of(fail, max_retries=1).error == f"the server stopped with {word!r}"


def test_a_word_nobody_knows_is_believed_the_second_time_and_kept() -> None:
    async def odd(request: HttpRequest, reply: Reply) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        await reply.answer("text", finish_reason="tired", usage=usage)

    results, server = run(ask(odd, "question"))
    assert isinstance(results[0], Completion)
    assert (results[0].stop_reason, results[0].finish_word) == (StopReason.STOP, "tired")
    assert len(server.requests) == 2
    known = completion_of(FailsFirst(odd, times=1))
    assert (known.text, known.finish_word) == ("fine", None)


def test_a_word_nobody_knows_without_usage_is_never_believed() -> None:
    async def odd(request: HttpRequest, reply: Reply) -> None:
        await reply.answer("text", finish_reason="tired")

    assert "tired" in attempt_of(odd).error


@pytest.mark.parametrize("word", [7, ["stop"], {"reason": "stop"}, 1e308, None, True, ""])
def test_a_finish_reason_of_another_type_is_none(word: Any) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        message = {"content": "whole"}
        await reply.json({"choices": [{"message": message, "finish_reason": word}]})

    assert completion_of(handler, stream=False).stop_reason is StopReason.STOP


# --- K: harmless departures ---


def test_content_may_be_a_list_of_parts() -> None:
    thought = [{"type": "text", "text": "hmm"}]

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(
            reply,
            chunk([{"type": "thinking", "thinking": thought}]),
            chunk([{"type": "text", "text": "4"}, {"type": "output_text", "text": "2"}]),
            chunk(finish_reason="stop"),
        )

    completion = completion_of(handler)
    assert (completion.text, completion.reasoning) == ("42", "hmm")


@pytest.mark.parametrize("media_type", ["text/plain", "application/octet-stream", "x/y"])
def test_a_stream_is_one_whatever_it_is_called(media_type: str) -> None:
    stream = b'\n: hello\n\ndata: {"choices": [{"delta": {"content": "4"}}]}\n\ndata: null\n\n'
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.send(stream + end, media_type=media_type)

    assert completion_of(handler).text == "4"


def test_a_body_is_one_though_it_is_called_a_stream() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        body = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}
        await reply.send(json.dumps(body).encode(), media_type="text/event-stream")

    assert completion_of(handler).text == "4"


@pytest.mark.parametrize(
    "models",
    [
        (404, {"detail": "Not Found"}),
        (403, {"detail": "no"}),
        (405, {}),
        (500, {"error": "x"}),
        (200, [{"id": "tiny", "object": "model"}]),
        (200, None),
        (200, {"data": None}),
        (200, {"models": [{"name": "tiny"}]}),
        (200, "tiny"),
    ],
)
def test_a_list_of_models_may_be_missing_or_of_another_shape(models: tuple[int, Any]) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.method == "GET":
            status, body = models if request.path == "/v1/models" else (404, {})
            await reply.json(body, status=status)
        else:
            await fine(request, reply)

    assert completion_of(handler, models=[]).text == "fine"


def test_ollamas_latest_may_be_left_out_of_a_models_name() -> None:
    assert completion_of(fine, models=[{"id": "tiny:latest"}]).text == "fine"


def test_a_server_may_want_another_name_for_the_budget_and_know_no_neutral_field() -> None:
    known = {"model", "messages", "stream", "stream_options", "seed", "temperature", "top_p"}
    known |= {"presence_penalty", "max_completion_tokens", "top_k"}
    budgets = []

    async def handler(request: HttpRequest, reply: Reply) -> None:
        for name in request.body:
            if name == "max_tokens":
                await reply.error(400, "'max_tokens' is not supported: use 'max_completion_tokens'")
                return
            if name not in known:
                await reply.error(400, f"Unrecognized request argument supplied: {name}")
                return
        budgets.append(request.body["max_completion_tokens"])
        await reply.answer("fine")

    assert completion_of(handler).text == "fine"
    assert budgets == [16]


def test_a_field_that_moves_answers_is_never_dropped_unasked() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if "top_k" in request.body:
            await reply.error(400, "Unrecognized request argument supplied: top_k")
        else:
            await reply.answer("fine")

    with pytest.raises(EngineError, match="top_k") as caught:
        run(ask(handler, "question", sampling={"top_k": 64}))
    assert "--set engine.omit=[top_k]" in str(caught.value)
    assert completion_of(handler, omit=("top_k",)).text == "fine"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_the_same_host_is_followed(status: int) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.path.startswith("/new"):
            body = {"data": [{"id": "tiny"}]}
            await (reply.json(body) if request.method == "GET" else fine(request, reply))
        elif request.method == "GET" or status in (307, 308):
            await reply.send(b"", status=status, Location="/new" + request.path)
        else:
            await fine(request, reply)

    assert completion_of(handler, models=[]).text == "fine"


def test_a_redirect_to_another_host_gets_no_key() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.send(b"", status=308, Location="http://127.0.0.1:9/v1")

    with pytest.raises(EngineError, match="sends us on to"):
        run(ask(handler, "question"))


def test_two_halves_of_a_character_become_one_again() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(
            reply, chunk("\ud83d"), chunk("\ude00 \ud83d"), chunk(finish_reason="stop")
        )

    assert completion_of(handler).text == "\U0001f600 \ud83d"


# --- border: types, sizes, depths ---

ODD_VALUES = [7, -1, BIG, 1.5, 1e308, True, None, "text", [], [BIG], {}, {"a": [1]}, "\ud83d", ""]


@pytest.mark.parametrize("value", ODD_VALUES, ids=ascii)
def test_a_value_of_another_type_is_unknown_and_the_answer_stays(value: Any) -> None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details")
    event = {"id": value, "created": value, "model": value, "prompt_token_ids": value}

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(
            reply,
            {**event, "choices": [{"index": value, "delta": {"role": value}, "logprobs": value}]},
            {**event, **chunk("text", token_ids=value)},
            {**event, **chunk(finish_reason="stop"), "usage": dict.fromkeys(names, value)},
            {"choices": [], "usage": value},
        )

    completion = completion_of(handler)
    assert completion.text == "text"
    for count in (completion.prompt_tokens, completion.completion_tokens):
        assert count is None or 0 <= count < 2**31


DEEP = b"[" * 10_000 + b"]" * 10_000
BAD_EVENTS = {
    "deep": b'{"choices": ' + DEEP + b"}",
    "deep beside the answer": b'{"x": ' + DEEP + b', "choices": [{"delta": {"content": "a"}}]}',
    "long number": b'{"choices": [{"delta": {"content": ' + b"9" * 10_000 + b"}}]}",
    "text of another type": b'{"choices": [{"delta": {"content": 4}}]}',
    "delta of another type": b'{"choices": [{"delta": [4]}]}',
    "choices of another type": b'{"choices": {"a": 1}}',
    "not UTF-8": b'{"choices": [{"delta": {"content": "\xff\xfe"}}]}',
    "half": b'{"choices": [{"delta": {"cont',
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_what_cannot_be_read_is_tried_again_and_never_an_answer(name: str) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.raw(b"data: " + BAD_EVENTS[name] + b"\n\n")
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"


def test_brackets_inside_a_text_are_no_depth() -> None:
    text = "{[" * 500 + '\\"' + "]}"

    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.answer(text)

    assert completion_of(handler).text == text


async def endless_line(request: HttpRequest, reply: Reply) -> None:
    await reply.start_stream()
    await reply.raw(b"data: ")
    while True:
        await reply.raw(b"x" * 65536)


async def endless_events(request: HttpRequest, reply: Reply) -> None:
    await reply.start_stream()
    while True:
        await reply.delta("so " * 1000)


async def endless_comments(request: HttpRequest, reply: Reply) -> None:
    await reply.start_stream()
    while True:
        await reply.raw(b": " + b"." * 65536 + b"\n")


async def endless_body(request: HttpRequest, reply: Reply) -> None:
    await reply.start_stream()
    while True:
        await reply.raw(b" " * 10 + b'{"a": 1}' * 8192)


async def gzip_bomb(request: HttpRequest, reply: Reply) -> None:
    packed = gzip.compress(b'{"choices": "' + b"a" * 2**26 + b'"}')
    await reply.send(packed, Content_Encoding="gzip")


@pytest.mark.parametrize(
    "fail", [endless_line, endless_events, endless_comments, endless_body, gzip_bomb]
)
def test_what_never_ends_is_cut_at_its_bound(
    fail: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_stream, "LINE_BYTES", 2**20)
    monkeypatch.setattr(openai_stream, "STREAM_BYTES", 2**22)
    monkeypatch.setattr(openai_stream, "TEXT_CHARACTERS", 2**20)
    monkeypatch.setattr(server_connection, "BODY_BYTES", 2**21)
    assert "over" in attempt_of(fail, max_retries=0).error


def test_a_compressed_answer_is_read() -> None:
    body = json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]})

    async def handler(request: HttpRequest, reply: Reply) -> None:
        assert request.headers["accept-encoding"] == "identity"
        await reply.send(gzip.compress(body.encode()), Content_Encoding="gzip")

    assert completion_of(handler, stream=False).text == "4"


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd", "x" * 100])
def test_a_body_that_cannot_be_unpacked_is_tried_again(coding: str) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await reply.send(b"no such thing", Content_Encoding=coding)

    assert completion_of(FailsFirst(fail, times=1)).text == "fine"


def test_no_more_is_unpacked_at_a_time_than_a_piece() -> None:
    assert server_bodies._PIECE_BYTES <= 2**20


# --- G: the context cuts the budget, however it was learned ---


def refuses_past(context: int, say: Any, *, used: int = 30) -> Handler:
    """A server that refuses a budget past its context in its own words."""

    async def handler(request: HttpRequest, reply: Reply) -> None:
        budget = request.body["max_tokens"]
        if used + budget > context:
            await reply.json(say(budget, used, context), status=400)
        else:
            await reply.answer(str(budget))

    return handler


def vllm_words(budget: int, used: int, context: int) -> Any:
    text = (
        f"'max_tokens' or 'max_completion_tokens' is too large: {budget}. This model's maximum "
        f"context length is {context} tokens and your request has {used} input tokens"
    )
    return {"error": {"message": text, "code": 400}}


def openai_words(budget: int, used: int, context: int) -> Any:
    text = (
        f"This model's maximum context length is {context} tokens. However, you requested "
        f"{budget + used} tokens ({used} in the messages, {budget} in the completion)."
    )
    return {"error": {"message": text, "type": "invalid_request_error"}}


def sglang_words(budget: int, used: int, context: int) -> Any:
    text = (
        f"Requested token count exceeds the model's maximum context length of {context} tokens. "
        f"You requested a total of {budget + used} tokens: {used} tokens from the input messages "
        f"and {budget} tokens for the completion."
    )
    return {"object": "error", "message": text, "code": 400}


def tgi_words(budget: int, used: int, context: int) -> Any:
    text = (
        f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}. Given: "
        f"{used} `inputs` tokens and {budget} `max_new_tokens`"
    )
    return {"error": text, "error_type": "validation"}


def anthropic_words(budget: int, used: int, context: int) -> Any:
    text = f"input length and `max_tokens` exceed context limit: {used} + {budget} > {context}"
    return {"error": {"type": "invalid_request_error", "message": text}}


def terse_words(budget: int, used: int, context: int) -> Any:
    return {"detail": f"maximum context length is {context} tokens"}


@pytest.mark.parametrize(
    ("say", "budget"),
    [
        (vllm_words, "970"),
        (openai_words, "970"),
        (sglang_words, "970"),
        (tgi_words, "970"),
        (anthropic_words, "970"),
        (terse_words, "932"),  # the prompt's own tokens aren't said: 64 and half of its 8 bytes
    ],
)
def test_a_refused_budget_is_cut_to_what_the_refusal_leaves(say: Any, budget: str) -> None:
    handler = refuses_past(1000, say)
    results, server = run(
        ask(handler, "question", "question", sampling={"max_new_tokens": 5000}, concurrency=1)
    )
    texts = [r.text for r in results if isinstance(r, Completion)]
    assert texts[0] == budget
    assert len(texts) == 2
    assert len(server.requests) == 3  # the second request profits from the first one's refusal


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "row",
    [
        {"id": "tiny", "owned_by": "sglang", "max_model_len": 1000},
        {"id": "tiny", "context_length": 1000},
        {"id": "tiny", "max_context_length": 1000},
        {"id": "tiny", "owned_by": "vllm", "parent": "base", "max_model_len": None},
    ],
)
def test_a_context_the_server_states_cuts_the_budget_at_once(
    row: dict[str, Any], stream: bool
) -> None:
    handler = refuses_past(1000, vllm_words)
    models = [row, {"id": "base", "owned_by": "vllm", "max_model_len": 1000}]
    results, server = run(
        ask(
            handler,
            "question",
            models=models,
            sampling={"max_new_tokens": 5000},
            stream=stream,
            max_retries=0,
        )
    )
    assert isinstance(results[0], Completion), results
    assert sum("max_tokens" in (r.body or {}) for r in server.requests) == 1


def test_a_declared_context_cuts_the_budget_at_once() -> None:
    handler = refuses_past(1000, terse_words)
    sampling = {"max_new_tokens": 5000}
    results, server = run(ask(handler, "question", sampling=sampling, context_tokens=1000))
    assert isinstance(results[0], Completion)
    assert len(server.requests) == 1


def test_a_refusal_that_nothing_bears_out_cuts_no_other_budget() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.prompt == "odd":
            await reply.error(400, "maximum context length is 4 tokens")
        else:
            await reply.answer(str(request.body["max_tokens"]))

    results, _ = run(ask(handler, "odd", "question", concurrency=1))
    assert isinstance(results[0], Attempt)
    assert isinstance(results[1], Completion)
    assert results[1].text == "16"


def test_a_helper_call_that_answers_404_ends_nothing() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models":
            row = {"id": "tiny", "owned_by": "vllm", "max_model_len": 1000}
            await reply.json({"data": [row]})
        elif request.path.startswith("/v1/"):
            await refuses_past(1000, vllm_words)(request, reply)
        else:
            paths.append(request.path)
            await reply.error(404, "Not Found")

    paths: list[str] = []
    sampling = {"max_new_tokens": 5000}
    results, _ = run(ask(handler, "a", "b", models=[], sampling=sampling, concurrency=1))
    assert [type(r) for r in results] == [Completion, Completion]
    assert paths.count("/tokenize") == 1


def test_a_prompt_whose_beginning_the_server_dropped_is_refused_not_graded() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        usage = {"prompt_tokens": 2050, "completion_tokens": 3}
        await reply.answer("1", usage=usage)

    results, _ = run(ask(handler, "a long one " * 2000, "short"))
    assert isinstance(results[0], Attempt)
    assert results[0].refused
    assert "drops what its context can't hold" in results[0].error
    assert isinstance(results[1], Completion)


# --- I: whom a failure is about ---

MODERATED = {"error": {"code": 403, "message": "Your chosen model requires moderation and flagged"}}


def refuses_one(status: int, body: Any, **headers: str) -> Handler:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.prompt == "bad":
            await reply.json(body, status=status, **headers)
        else:
            await fine(request, reply)

    return handler


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, MODERATED),
        (403, {"error": "Request blocked."}),  # by nobody knows what, and others are answered
        (400, {"error": {"code": "content_filter", "message": "filtered by Azure's policy"}}),
        (400, {"error": {"message": "no", "code": "invalid_prompt"}}),
        (400, {"error": "what is this?"}),
        (422, {"detail": [{"msg": "String should be shorter"}]}),
        (413, {"error": "Payload Too Large"}),
        (200, {"error": {"code": "400", "message": "no"}}),
        (200, {"error": {"code": "content_policy_violation", "message": "no"}}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_can_never_succeed_is_refused_and_stops_no_other(
    status: int, body: Any, stream: bool
) -> None:
    prompts = ["fine", "bad", "fine", "fine"]
    results, server = run(ask(refuses_one(status, body), *prompts, concurrency=1, stream=stream))
    assert [type(r) for r in results] == [Completion, Attempt, Completion, Completion]
    assert isinstance(results[1], Attempt)
    assert results[1].refused
    assert sum(r.prompt == "bad" for r in server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "Incorrect API key"}),
        (402, {"error": "Insufficient balance"}),
        (403, {"error": "Forbidden"}),
        (404, {"error": "no such model"}),
        (429, {"error": {"code": "insufficient_quota"}}),
        (200, {"error": {"code": 401, "message": "no"}}),
        (200, {"error": {"code": "402", "message": "Insufficient balance"}}),
        (200, {"object": "error", "message": "no", "type": "invalid_api_key"}),
    ],
)
def test_a_failure_of_all_requests_ends_the_run_at_the_first(status: int, body: Any) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.json(body, status=status)

    with pytest.raises(EngineError) as caught:
        run(ask(handler, *["question"] * 5))
    assert caught.value.hint


def test_rate_limits_inside_an_answer_are_waited_out_not_used_up() -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        await send_events(reply, {"error": {"message": "RateLimitError", "code": "429"}})

    assert completion_of(FailsFirst(fail, times=6), max_retries=1).text == "fine"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "header", ["86400", "inf", "1e308", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_a_wait_longer_than_patience_ends_the_run_and_says_so(status: int, header: str) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.error(status, "free models per day", Retry_After=header)

    with pytest.raises(EngineError, match="free models per day") as caught:
        run(ask(handler, "question"), within_seconds=10)
    assert "run the same command then" in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        "86400",
        "nan",
        "-5",
        "soon",
        "0x10",
        "\ud83d".encode("utf-8", "replace").decode(),
        "Mon, 99 Foo",
    ],
)
def test_an_odd_wait_of_one_request_stops_no_other(header: str) -> None:
    handler = refuses_one(429, {"error": "slow"}, Retry_After=header)
    results, _ = run(
        ask(handler, "fine", "bad", "fine", concurrency=2, rate_limit_patience_seconds=0.05),
        within_seconds=10,
    )
    assert [type(r) for r in results] == [Completion, Attempt, Completion]
    assert isinstance(results[1], Attempt)
    assert not results[1].refused  # a rate limit passes


# --- another model's answers ---


def test_the_name_of_who_answered_is_kept() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(reply, {"model": "gpt-2", **chunk("4", finish_reason="stop")})

    assert completion_of(handler).model == "gpt-2"
    assert completion_of(fine).model is None


def test_one_answer_of_two_models_ends_the_run() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await send_events(
            reply,
            {"model": "tiny", **chunk("4")},
            {"model": "", **chunk("4")},  # Azure's first event names nobody
            {"model": "gpt-2", **chunk("2", finish_reason="stop")},
        )

    with pytest.raises(EngineError, match="'tiny' and then 'gpt-2'"):
        run(ask(handler, "question"))


def test_an_answer_wholly_in_the_reasoning_field_is_the_text_where_thinking_is_off() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.delta(reasoning="The answer is 4.")
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    assert completion_of(handler, thinking=False).text == "The answer is 4."
    assert completion_of(handler, thinking=True).text == ""


# --- J: no more than the server has ---


def test_no_more_is_sent_than_the_server_says_it_works_on() -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models":
            await reply.json({"data": [{"id": "tiny", "owned_by": "llamacpp"}]})
        elif request.path == "/props":
            await reply.json({"build_info": "b7000", "total_slots": 4})
        else:
            await asyncio.sleep(0.01)
            await reply.answer("fine")

    async def main() -> tuple[Any, int]:
        async with HttpServer(handler, models=[]) as server:
            engine = OpenAIEngine(OpenAIOptions(**QUICK), model="tiny", base_url=server.base_url)
            async with engine:
                server.most_open = 0
                results = await complete_all(engine, (make_request(number=i) for i in range(40)))
                facts = engine.describe()
            return (results, facts), server.most_open

    (results, facts), most = run(main())
    assert all(isinstance(r, Completion) for r in results.values())
    assert facts.operation["slots"] == 4
    assert most == 5
