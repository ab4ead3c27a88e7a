"""One try at one request: its body, the answer, and whether that is a completion.

What a server turns out to take (names of fields, a context, how it ends its answers) is learned
here from its refusals and kept for all requests.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from g4eval.config import SamplingParams
from g4eval.engines.base import UNKNOWN
from g4eval.engines.openai_budget import BudgetTries, TokenBudget, check_prompt_was_read
from g4eval.engines.openai_fields import FieldNames, refused_field, sampling_fields
from g4eval.engines.openai_options import OpenAIOptions
from g4eval.engines.openai_stream import (
    AnswerParts,
    ServerHabits,
    UnknownWordError,
    WordlessEndError,
)
from g4eval.engines.plain_prompt import plain_prompt
from g4eval.engines.retry import Failure, RequestFailedError
from g4eval.engines.server_connection import ServerConnection
from g4eval.engines.server_facts import ServerFacts, server_root
from g4eval.engines.server_json import as_count
from g4eval.records import Chat, Message, Request, StopReason, Text, TokenIds

# A question that nobody refuses, to see whether the server answers others.
_EASY = "What is 2 + 2?"
_EASY_TOKENS = 16
_REFUSES_LONG_PROMPTS = ("vllm", "sglang", "llama.cpp")


@dataclass(slots=True)
class RequestState:
    """What became of one request so far."""

    sent_at: float = 0.0  # monotonic, the newest try
    sent_budget: int = 0
    stop_reason: StopReason = StopReason.STOP
    was_wordless: bool = False  # a try ended with the end mark alone
    unknown_word: str | None = None  # that a try ended with
    refused_field: str | None = None  # of the body, by name


class OpenAISender:
    """Sends requests and reads answers.

    Args:
        options: see OpenAIOptions.
        model: the id by which the server knows the model.
        connection: to the server.
    """

    def __init__(self, options: OpenAIOptions, model: str, connection: ServerConnection) -> None:
        self._options = options
        self._model = model
        self._connection = connection
        self._kind = UNKNOWN
        self._path = "chat/completions" if options.api == "chat" else "completions"
        self._fields = FieldNames()
        self._budget = TokenBudget(options.context_tokens)
        self._habits = ServerHabits()
        self._can_count = True
        self._answered_at = float("-inf")  # monotonic
        self._asking = asyncio.Lock()

    def meet(self, server: ServerFacts) -> None:
        """Take in what the server says of itself."""
        self._kind = server.kind
        known = (self._options.context_tokens, server.context_tokens, server.context_limit)
        contexts = [context for context in known if context is not None]
        count = self._count_tokens if server.kind == "vllm" else None
        self._budget = TokenBudget(min(contexts, default=None), count)

    async def send(self, request: Request, state: RequestState) -> AnswerParts:
        """Return the completion of one try; raises RequestFailedError for anything else."""
        state.sent_at = time.monotonic()
        parts = await self._post(request, state)
        try:
            parts.check(self._habits, was_wordless=state.was_wordless)
            state.stop_reason = parts.stop_reason(state.sent_budget, known_word=state.unknown_word)
        except WordlessEndError:
            state.was_wordless = True
            raise
        except UnknownWordError as error:
            state.unknown_word = error.word
            raise
        if state.unknown_word != parts.finish_word:
            state.unknown_word = None  # this try ended with a word that is known
        if self._kind not in _REFUSES_LONG_PROMPTS:
            check_prompt_was_read(request, parts.prompt_tokens())
        self._answered_at = time.monotonic()
        return parts

    async def answers_others(self, request: Request, state: RequestState) -> bool:
        """Whether the server answers another question sent as the one that it refused was.

        An answer that came after the refused request went out says so; else an easy one is asked.
        """
        async with self._asking:  # many are refused at once, and one answer is enough for them
            if self._answered_at > state.sent_at:
                return True
            try:
                await self._post(_easy(request), RequestState())
            except RequestFailedError:
                return False
            self._answered_at = time.monotonic()
            return True

    async def is_there(self) -> bool:
        """Whether something behind the address answers questions, or refuses what they ask for."""
        sampling = SamplingParams(max_new_tokens=_EASY_TOKENS)
        request = Request(
            key="",
            task_id="",
            task_version=1,
            sample_id="",
            repeat=0,
            prompt=Chat(()),
            sampling=sampling,
            seed=0,
        )
        try:
            await self._post(_easy(request), RequestState())
        except RequestFailedError as error:
            return error.failure in (Failure.REJECTED, Failure.NEVER, Failure.RATE_LIMITED)
        return True

    async def _post(self, request: Request, state: RequestState) -> AnswerParts:
        """Send, again with other fields or another budget where that is what was refused."""
        prompt = self._prompt(request)
        tries = BudgetTries(sent=await self._budget.of(request, prompt))
        while True:
            body = self._fields.fit(self._body(request, prompt, tries.sent))
            state.sent_budget = tries.sent
            try:
                path = self._path if "messages" in prompt else "completions"
                parts = await self._connection.post(path, body)
            except RequestFailedError as error:
                if self._fields.learn(error, body):
                    continue
                budget = self._budget.after(request, error, tries)
                if budget is None:
                    state.refused_field = refused_field(error, body)
                    raise
                tries.sent = budget
            else:
                self._budget.confirm(tries)
                return parts

    def _body(self, request: Request, prompt: Mapping[str, Any], budget: int) -> dict[str, Any]:
        body = {
            **prompt,
            **sampling_fields(request, self._kind),
            "max_tokens": budget,
            "stream": self._options.stream,
            **({"stream_options": {"include_usage": True}} if self._options.stream else {}),
            **self._options.extra_body,
        }
        for name in self._options.omit:
            body.pop(name, None)
        return body

    def _prompt(self, request: Request) -> dict[str, Any]:
        if isinstance(request.prompt, TokenIds):
            return {"model": self._model, "prompt": list(request.prompt.ids)}
        if isinstance(request.prompt, Text):
            return {"model": self._model, "prompt": request.prompt.text}
        if self._options.api == "completions":
            return {"model": self._model, "prompt": plain_prompt(request.messages)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        }
        if self._options.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self._options.thinking}
        return body

    async def _count_tokens(self, prompt: Mapping[str, Any]) -> int | None:
        """Ask vLLM's tokenizer; not again once it didn't answer: a gateway may pass /v1 alone."""
        if not self._can_count:
            return None
        try:
            address = server_root(self._connection.address) + "/tokenize"
            count = as_count((await self._connection.post_json(address, prompt)).get("count"))
        except RequestFailedError as error:
            if error.failure is not Failure.BROKEN:
                self._can_count = False
            return None
        return count


def _easy(request: Request) -> Request:
    """Return an easy question with another request's parameters."""
    sampling = request.sampling
    most = min(_EASY_TOKENS, sampling.max_new_tokens)
    return replace(
        request,
        prompt=Chat((Message(role="user", content=_EASY),)),
        sampling=sampling.model_copy(update={"max_new_tokens": most}),
        seed=0,
    )
