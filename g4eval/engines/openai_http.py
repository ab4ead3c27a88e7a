"""Engine `openai`: any OpenAI-compatible server, over httpx.

One try at a request is `_send`; `_until_done` repeats it by the rules of `retry.py`, on a place
that `pacing.py` gives; `in_flight.py` keeps many of them going. There is no limit on the total time
of a request: only silence longer than `idle_timeout_seconds` counts as a broken connection.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from g4eval.config import parse_model
from g4eval.engines.base import UNKNOWN, EngineConfig, EngineFacts
from g4eval.engines.in_flight import complete_concurrently
from g4eval.engines.openai_fields import read_prompt_logprobs, sampling_fields
from g4eval.engines.openai_stream import AnswerParts
from g4eval.engines.pacing import AdaptiveLimit
from g4eval.engines.plain_prompt import plain_prompt
from g4eval.engines.retry import Failure, RequestFailedError, RetryPolicy, Tries
from g4eval.engines.server_connection import ServerConnection
from g4eval.engines.server_facts import ServerFacts, ask_server, server_root
from g4eval.errors import ConfigError, EngineError, nearest
from g4eval.records import Attempt, Completion, Request, TokenScores
from g4eval.responses import build_completion

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# A prompt has no more tokens than UTF-8 bytes, but for what a chat template adds a turn.
_TEMPLATE_TOKENS = 64

# Facts that a server rarely tells, which the user may declare with `--set engine.NAME=VALUE`.
_DECLARABLE = (
    "engine_version",
    "weights_fingerprint",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "attention_backend",
    "parallelism",
    "speculative_decoding",
    "chat_template_hash",
    "reasoning_parser",
    "context_tokens",
)


class OpenAIOptions(BaseModel):
    """`--set engine.KEY=VALUE` of engine `openai`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: Literal["chat", "completions"] = "chat"
    stream: bool = True
    thinking: bool | None = None  # asked of the chat template; None: its default
    concurrency: int = Field(default=64, ge=1)  # at most; fewer after a 429
    idle_timeout_seconds: float = Field(default=1800.0, gt=0)
    connect_timeout_seconds: float = Field(default=30.0, gt=0)
    max_retries: int = Field(default=8, ge=0)
    first_wait_seconds: float = Field(default=1.0, ge=0)
    longest_wait_seconds: float = Field(default=60.0, ge=0)
    rate_limit_patience_seconds: float = Field(default=3600.0, ge=0)
    give_up_after: int = Field(default=32, ge=1)  # requests failed in a row, none done between
    omit: tuple[str, ...] = ()  # body fields this server refuses: ("top_k", "min_p")
    extra_body: Mapping[str, Any] = Field(default_factory=dict)  # more body fields, sent as given

    engine_version: str | None = None
    weights_fingerprint: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    attention_backend: str | None = None
    parallelism: str | None = None
    speculative_decoding: str | None = None
    chat_template_hash: str | None = None
    reasoning_parser: str | None = None
    context_tokens: int | None = Field(default=None, ge=1)


class OpenAIEngine:
    """An Engine, and where the server offers it a ScoringEngine, behind an HTTP address.

    Args:
        options: see OpenAIOptions.
        model: the id by which the server knows the model.
        base_url: the API's address, ending in /v1 as a rule.
        api_key: sent to the server and kept nowhere else.
    """

    def __init__(
        self, options: OpenAIOptions, *, model: str, base_url: str, api_key: str | None = None
    ) -> None:
        self._options = options
        self._model = model
        self._connection = ServerConnection(
            base_url,
            api_key=api_key,
            connections=options.concurrency,
            idle_timeout_seconds=options.idle_timeout_seconds,
            connect_timeout_seconds=options.connect_timeout_seconds,
        )
        self._policy = RetryPolicy(
            max_retries=options.max_retries,
            first_wait_seconds=options.first_wait_seconds,
            longest_wait_seconds=options.longest_wait_seconds,
            rate_limit_patience_seconds=options.rate_limit_patience_seconds,
        )
        self._limit = AdaptiveLimit(options.concurrency)
        self._server = ServerFacts()
        self._n_failed_in_a_row = 0

    @classmethod
    def configure(cls, config: EngineConfig) -> Self:
        """Make the engine; the key comes from G4EVAL_API_KEY, else OPENAI_API_KEY."""
        if not config.base_url:
            raise ConfigError(
                "engine openai needs the server's address",
                where="--base-url",
                hint="for example --base-url http://127.0.0.1:8000/v1",
            )
        if not config.model:
            raise ConfigError(
                "engine openai needs the server's name for the model", where="--model"
            )
        defaults: dict[str, Any] = {}
        if config.profile is not None:
            plain = config.profile.chat_format == "plain"
            defaults = {"api": "completions"} if plain else {"thinking": config.profile.thinking}
        options = {**defaults, **config.options}
        return cls(
            parse_model(OpenAIOptions, options, where="--set", prefix="engine."),
            model=config.model,
            base_url=config.base_url,
            api_key=api_key_from(os.environ),
        )

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        try:
            self._server = await self._meet_server()
        except BaseException:
            await self._connection.__aexit__()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.__aexit__()

    def describe(self) -> EngineFacts:
        """Return what the server says and what the user declared; the rest is unknown."""
        options, server = self._options, self._server
        declared = self._declared()
        told = {name: value for name in _DECLARABLE if (value := getattr(server, name, None))}
        if server.kind != UNKNOWN:
            told["engine_version"] = f"{server.kind} {server.version}"
        if options.api == "completions":
            told["chat_template_hash"] = "none"
        known = {name: value for name, value in told.items() if value != UNKNOWN}
        facts = EngineFacts(
            **{"engine_version": UNKNOWN, **known, **declared},
            engine="openai",
            model=self._model,
            thinking={True: "on", False: "off", None: UNKNOWN}[options.thinking],
            other={
                "api": options.api,
                "omit": sorted(options.omit),
                "extra_body": dict(options.extra_body),
            },
            operation={
                "address": self._connection.address,
                "concurrency": options.concurrency,
                "stream": options.stream,
            },
            declared=tuple(sorted(declared)),
        )
        if UNKNOWN in facts.identity().values():
            facts = replace(facts, server_address=self._connection.address)
        return facts

    def complete(self, requests: Iterable[Request]) -> AsyncGenerator[Completion | Attempt, None]:
        """Yield each request's completion as its stream ends; see Engine.complete."""
        self._n_failed_in_a_row = 0
        return complete_concurrently(requests, self._answer, concurrency=self._options.concurrency)

    async def score(self, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
        """Return log p of each token after the first, by vLLM's `prompt_logprobs`."""
        if self._server.kind != "vllm":
            raise EngineError(
                "this server can't score given tokens: it isn't vLLM",
                where=self._connection.address,
                hint="use --engine vllm or gemma, or serve the model with vLLM",
            )
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": top_k,
        }
        try:
            answer = await self._until_done(lambda: self._connection.post_json("completions", body))
        except RequestFailedError as error:
            hint = "serve it with --max-logprobs at least as large" if top_k else None
            raise self._stopped(error, hint=hint) from None
        return read_prompt_logprobs(token_ids, answer["choices"][0]["prompt_logprobs"], top_k)

    async def _meet_server(self) -> ServerFacts:
        async def ask(address: str) -> dict[str, Any]:
            try:
                return await self._connection.get_json(address)
            except RequestFailedError:
                return {}

        try:
            models = await self._until_done(
                lambda: self._connection.get_json("models"), give_up_on=(Failure.UNREACHABLE,)
            )
        except RequestFailedError as error:
            raise self._stopped(error) from None
        server = await ask_server(ask, self._connection.address, models, self._model)
        if server.models and self._model not in server.models:
            raise EngineError(
                f"the server has no model {self._model!r}",
                where=self._connection.address,
                hint=nearest(self._model, server.models),
            )
        for name, value in self._declared().items():
            told = getattr(server, name, UNKNOWN)
            if told not in (UNKNOWN, None, value):
                raise ConfigError(
                    f"engine.{name} is declared as {value!r}, and the server says {told!r}",
                    where=self._connection.address,
                )
        return server

    async def _answer(self, request: Request) -> Completion | Attempt:
        started_at = time.time()
        try:
            parts = await self._until_done(lambda: self._send(request))
        except RequestFailedError as error:
            return self._give_up(request, error)
        self._n_failed_in_a_row = 0
        most = request.sampling.max_new_tokens
        completion_tokens = parts.completion_tokens(most)
        return build_completion(
            request,
            parts.text,
            parts.stop_reason(most),
            thinking=bool(self._options.thinking),
            reasoning=parts.reasoning,
            prompt_token_ids=parts.prompt_token_ids,
            token_ids=parts.token_ids,
            prompt_tokens=parts.prompt_tokens(),
            reasoning_tokens=parts.reasoning_tokens(completion_tokens),
            completion_tokens=completion_tokens,
            started_at=started_at,
            finished_at=time.time(),
        )

    async def _until_done(
        self, send: Callable[[], Awaitable[_T]], *, give_up_on: tuple[Failure, ...] = ()
    ) -> _T:
        """Try until it works; raises the last failure once it may not be tried again."""
        tries = Tries(policy=self._policy)
        while True:
            try:
                async with self._limit.slot() as sent_at:
                    try:
                        answer = await send()
                    except RequestFailedError as error:
                        if error.failure is Failure.RATE_LIMITED:
                            self._limit.slow_down(sent_at, error.retry_after_seconds or 0.0)
                        raise
            except RequestFailedError as error:
                wait = tries.next_wait_seconds(error, random.random())
                if wait is None or error.failure in give_up_on:
                    raise
                _log.warning("trying again in %.1f s: %s", wait, error.message)
            else:
                self._limit.speed_up()
                return answer
            await asyncio.sleep(wait)

    async def _send(self, request: Request) -> AnswerParts:
        path = "chat/completions" if self._options.api == "chat" else "completions"
        prompt = self._prompt(request)
        body = {
            **prompt,
            **sampling_fields(request, self._server.kind),
            "max_tokens": await self._budget(request, prompt),
            "stream": self._options.stream,
            **({"stream_options": {"include_usage": True}} if self._options.stream else {}),
            **self._options.extra_body,
        }
        for name in self._options.omit:
            body.pop(name, None)
        parts = await self._connection.post(path, body)
        parts.stop_reason(request.sampling.max_new_tokens)  # raises where the server broke off
        return parts

    def _prompt(self, request: Request) -> dict[str, Any]:
        if self._options.api == "completions":
            return {"model": self._model, "prompt": plain_prompt(request.messages)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        }
        if self._options.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self._options.thinking}
        return body

    async def _budget(self, request: Request, prompt: Mapping[str, Any]) -> int:
        """Return max_new_tokens, or what the context leaves; vLLM refuses a budget past its end."""
        most, context = request.sampling.max_new_tokens, self._server.context_tokens
        longest = sum(len(m.content.encode()) + _TEMPLATE_TOKENS for m in request.messages)
        if self._server.kind != "vllm" or context is None or longest + most <= context:
            return most
        address = server_root(self._connection.address) + "/tokenize"
        n_prompt = (await self._connection.post_json(address, prompt)).get("count")
        if not isinstance(n_prompt, int):
            return most
        if n_prompt >= context:
            raise RequestFailedError(
                Failure.REJECTED, f"the prompt has {n_prompt} tokens and the context {context}"
            )
        return min(most, context - n_prompt)

    def _give_up(self, request: Request, error: RequestFailedError) -> Attempt:
        """Return the Attempt of one request, unless the failure is about all of them."""
        self._n_failed_in_a_row += 1
        if error.failure in (Failure.REFUSED, Failure.UNREACHABLE):
            raise self._stopped(error)
        if self._n_failed_in_a_row >= self._options.give_up_after:
            raise self._stopped(error, n_failed=self._n_failed_in_a_row)
        return Attempt(
            key=request.key,
            task_id=request.task_id,
            sample_id=request.sample_id,
            repeat=request.repeat,
            error=error.message,
            at=time.time(),
        )

    def _stopped(
        self, error: RequestFailedError, *, hint: str | None = None, n_failed: int = 0
    ) -> EngineError:
        many = f"{n_failed} requests failed in a row, the last with: " if n_failed else ""
        return EngineError(
            f"the server can't be used: {many}{error.message}",
            where=self._connection.address,
            hint=hint or _advice(error),
        )

    def _declared(self) -> dict[str, Any]:
        values = {name: getattr(self._options, name) for name in _DECLARABLE}
        return {name: value for name, value in values.items() if value is not None}


def api_key_from(environment: Mapping[str, str]) -> str | None:
    """Return the key of G4EVAL_API_KEY, else of OPENAI_API_KEY; None where neither is set."""
    return environment.get("G4EVAL_API_KEY") or environment.get("OPENAI_API_KEY") or None


def _advice(error: RequestFailedError) -> str | None:
    if error.failure is Failure.UNREACHABLE:
        return "start the server, then run the same command: what is stored is not made again"
    if error.message.startswith(("HTTP 401", "HTTP 403")):
        return "set G4EVAL_API_KEY (or OPENAI_API_KEY) to a key this server takes"
    if error.message.startswith("HTTP 404") or "HTML" in error.message:
        return "check --base-url, which ends in /v1 for most servers, and --model"
    if error.failure is Failure.REJECTED:
        return "a field it doesn't know is left out with --set engine.omit=[NAME]"
    return "see the server's log, then run the same command: what is stored is not made again"
