"""Engine `openai`: any OpenAI-compatible server, over httpx.

One try at a request is `OpenAISender.send`; `_until_done` repeats it by the rules of `retry.py`, on
a place that `pacing.py` gives. What a server may send, and for how long it may be silent, stands in
`server_json.py` and `server_clocks.py`.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from g4eval.config import parse_model
from g4eval.engines.base import UNKNOWN, EngineConfig, EngineFacts
from g4eval.engines.openai_failures import advice, is_about_one
from g4eval.engines.openai_fields import read_prompt_logprobs
from g4eval.engines.openai_options import DECLARABLE, OpenAIOptions
from g4eval.engines.openai_sender import OpenAISender, RequestState
from g4eval.engines.openai_stream import AnswerParts
from g4eval.engines.pacing import START, AdaptiveLimit
from g4eval.engines.retry import Failure, RequestFailedError, RetryPolicy, Tries
from g4eval.engines.server_address import api_key_from
from g4eval.engines.server_clocks import AnswerTimedOutError
from g4eval.engines.server_connection import ConnectionOptions, ServerConnection
from g4eval.engines.server_facts import ServerFacts, ask_server, find_model
from g4eval.engines.server_secrets import secrets_in
from g4eval.errors import ConfigError, EngineError, nearest
from g4eval.records import Attempt, Completion, Request, StopReason, TokenScores
from g4eval.responses import build_attempt, build_completion

__all__ = ["OpenAIEngine", "OpenAIOptions", "api_key_from"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class OpenAIEngine:
    """An Engine, and where the server offers it a ScoringEngine, behind an HTTP address.

    Args:
        options: see OpenAIOptions.
        model: the id by which the server knows the model.
        base_url: the API's address, ending in /v1 as a rule.
        api_key: sent to the server and kept nowhere else.
        headers: sent to the server; their names alone are kept.
    """

    def __init__(
        self,
        options: OpenAIOptions,
        *,
        model: str,
        base_url: str,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self._model = model
        self._header_names = sorted(headers or ())
        self._limit = AdaptiveLimit(options.concurrency)
        self._connection = ServerConnection(
            base_url,
            api_key=api_key,
            options=ConnectionOptions(
                connections=options.concurrency,
                queue_timeout_seconds=options.queue_timeout_seconds,
                idle_timeout_seconds=options.idle_timeout_seconds,
                connect_timeout_seconds=options.connect_timeout_seconds,
                headers=headers or {},
            ),
            more_secrets=frozenset(secrets_in(options.extra_body)),
            on_progress=self._limit.progress,
        )
        self._policy = RetryPolicy(
            max_retries=options.max_retries,
            first_wait_seconds=options.first_wait_seconds,
            longest_wait_seconds=options.longest_wait_seconds,
            rate_limit_patience_seconds=options.rate_limit_patience_seconds,
        )
        self._server = ServerFacts()
        self._sender = OpenAISender(options, model, self._connection)
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
            headers=config.headers,
        )

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        try:
            self._server = await self._meet_server()
        except BaseException:
            await self._connection.__aexit__()
            raise
        self._sender.meet(self._server)
        self._set_pace(self._server.slots)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.__aexit__()

    @property
    def capacity(self) -> int:
        """As many as the server takes at the moment; see Engine.capacity."""
        return self._limit.limit

    def describe(self) -> EngineFacts:
        """Return what the server says and what the user declared; the rest is unknown."""
        options, server = self._options, self._server
        declared = options.declared()
        told = {name: value for name in DECLARABLE if (value := getattr(server, name, None))}
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
                **self._learned(),
            },
            declared=tuple(sorted(declared)),
        )
        if UNKNOWN in facts.identity().values():
            facts = replace(facts, server_address=self._connection.address)
        return facts

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
            answer = await self._until_done(
                lambda: self._connection.post_for_scores("completions", body)
            )
        except RequestFailedError as error:
            hint = "serve it with --max-logprobs at least as large" if top_k else None
            raise self._stopped(error, hint=hint) from None
        choices = answer.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else {}
        rows = first.get("prompt_logprobs") if isinstance(first, dict) else None
        return read_prompt_logprobs(token_ids, rows, top_k)

    async def _meet_server(self) -> ServerFacts:
        async def ask(address: str) -> Any:
            try:
                return await self._connection.get_json(address)
            except RequestFailedError:
                return {}

        async def post(address: str, body: Mapping[str, Any]) -> Any:
            try:
                return await self._connection.post_json(address, body)
            except RequestFailedError:
                return {}

        async def read(address: str) -> str:
            try:
                return await self._connection.get_text(address)
            except RequestFailedError:
                return ""

        models = await self._list_models()
        address = self._connection.address
        server = await ask_server(ask, address, models, self._model, post=post, read=read)
        if server.models and not find_model(self._model, server.models):
            raise EngineError(
                f"the server has no model {self._model!r}",
                where=address,
                hint=nearest(self._model, server.models),
            )
        for name, value in self._options.declared().items():
            told = getattr(server, name, UNKNOWN)
            if told not in (UNKNOWN, None, value):
                raise ConfigError(
                    f"engine.{name} is declared as {value!r}, and the server says {told!r}",
                    where=address,
                )
        return server

    async def _list_models(self) -> Any:
        """Return what `/models` answers; nothing where the server answers questions without it."""
        try:
            return await self._connection.get_json("models")
        except RequestFailedError as error:
            if error.failure is Failure.UNREACHABLE:
                raise self._stopped(error) from None
            if await self._sender.is_there():
                _log.info("the server has no list of models: %s", error.message)
                return {}
        try:
            return await self._until_done(
                lambda: self._connection.get_json("models"), give_up_on=(Failure.UNREACHABLE,)
            )
        except RequestFailedError as error:
            raise self._stopped(error) from None

    def _set_pace(self, slots: int | None) -> None:
        """Start with what the server says it has; else low, unless the user gave a number."""
        most = self._options.concurrency
        if slots is not None:
            self._limit.bound(min(most, slots + max(1, slots // 8)))
        elif "concurrency" not in self._options.model_fields_set:
            self._limit.bound(most, start=START)

    def _learned(self) -> dict[str, Any]:
        """Return what is known in newer ways than the first version's: facts of operation."""
        server = self._server
        found = {
            "server": None if server.product == UNKNOWN else server.product,
            "slots": server.slots,
            "context_limit": server.context_limit,
            "headers": self._header_names,
        }
        return {name: value for name, value in found.items() if value}

    async def answer(self, request: Request) -> Completion | Attempt:
        """Return a request's completion as its stream ends; see Engine.answer."""
        started_at = time.time()
        state = RequestState()
        try:
            parts = await self._until_done(lambda: self._sender.send(request, state))
        except RequestFailedError as error:
            return await self._give_up(request, error, state)
        self._n_failed_in_a_row = 0
        return self._completion(request, parts, state, started_at)

    def _completion(
        self, request: Request, parts: AnswerParts, state: RequestState, started_at: float
    ) -> Completion:
        secrets = self._connection.secrets
        raw_text, raw_reasoning = parts.text, parts.reasoning
        text = secrets.hide_in_text(raw_text)
        reasoning = raw_reasoning and secrets.hide_in_text(raw_reasoning)
        is_as_sent = (text, reasoning) == (raw_text, raw_reasoning)
        is_all_reasoning = reasoning and not text.strip() and state.stop_reason is StopReason.STOP
        if reasoning and is_all_reasoning and self._options.thinking is False:
            text, reasoning = reasoning, None  # of a parser that waited for a thought's end
        completion_tokens = parts.completion_tokens(state.sent_budget)
        completion = build_completion(
            request,
            text,
            state.stop_reason,
            thinking=bool(self._options.thinking),
            reasoning=reasoning,
            prompt_token_ids=parts.prompt_token_ids,
            token_ids=parts.token_ids if is_as_sent else None,  # ids would spell it out
            prompt_tokens=parts.prompt_tokens(),
            reasoning_tokens=parts.reasoning_tokens(completion_tokens),
            completion_tokens=completion_tokens,
            started_at=started_at,
            finished_at=time.time(),
        )
        word = state.unknown_word and secrets.hide(state.unknown_word)
        model = parts.model and secrets.hide(parts.model)
        return replace(completion, finish_word=word, model=model)

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
                        self._heed(error, sent_at)
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

    def _heed(self, error: RequestFailedError, sent_at: float) -> None:
        """Send less at once after a refusal of a busy server, and after a time-out."""
        if error.failure is Failure.RATE_LIMITED:
            pause = (error.retry_after_seconds or 0.0) if self._is_patient(error) else 0.0
            self._limit.slow_down(sent_at, pause)
        elif isinstance(error, AnswerTimedOutError):
            self._limit.slow_down(sent_at)

    async def _give_up(
        self, request: Request, error: RequestFailedError, state: RequestState
    ) -> Attempt:
        """Return the Attempt of one request, unless the failure is about all of them."""
        is_refused = error.failure is Failure.NEVER
        if error.failure in (Failure.REFUSED, Failure.REJECTED) or not self._is_patient(error):
            others = is_about_one(error) and await self._sender.answers_others(request, state)
            is_refused = others and self._is_patient(error)
            if not others and (error.failure is not Failure.REJECTED or state.refused_field):
                raise self._stopped(error, refused_field=state.refused_field)
        self._n_failed_in_a_row += not is_refused
        if error.failure is Failure.UNREACHABLE:
            raise self._stopped(error)
        if self._n_failed_in_a_row >= self._options.give_up_after:
            raise self._stopped(error, n_failed=self._n_failed_in_a_row)
        return build_attempt(request, error.message, refused=is_refused)

    def _is_patient(self, error: RequestFailedError) -> bool:
        return self._policy.is_patient_with(error)

    def _stopped(
        self,
        error: RequestFailedError,
        *,
        hint: str | None = None,
        n_failed: int = 0,
        refused_field: str | None = None,
    ) -> EngineError:
        many = f"{n_failed} requests failed in a row, the last with: " if n_failed else ""
        if not self._is_patient(error):
            hint = (
                f"it asks to wait {error.retry_after_seconds:,.0f} s, longer than "
                "engine.rate_limit_patience_seconds: run the same command then"
            )
        return EngineError(
            f"the server can't be used: {many}{error.message}",
            where=self._connection.address,
            hint=hint or advice(error, refused_field),
        )
