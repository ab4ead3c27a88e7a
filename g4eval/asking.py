"""One try under way: its dialogue asks; what is stored is replayed, the rest the engine answers.

Each answer is stored as it comes, so a try that was broken off goes on at the step it had reached.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from g4eval.engines.base import ScoringEngine, TokenizingEngine
from g4eval.errors import EngineError, StepFailedError, TaskError
from g4eval.plan import PlannedTry
from g4eval.records import (
    Attempt,
    Completion,
    Kind,
    Message,
    Prompt,
    Request,
    StopReason,
    Text,
    TokenIds,
    Tool,
    ToolResult,
    Try,
)
from g4eval.rendering import render_request
from g4eval.store.run_store import RunStore

Clean = Callable[[Completion | Attempt], Completion | Attempt]
_NO_BOUND: AbstractAsyncContextManager[None] = nullcontext()


class Answering(Protocol):
    """The part of an engine that a try needs."""

    async def answer(self, request: Request) -> Completion | Attempt:
        """See Engine.answer."""
        ...


class Asking:
    """The `ask` of one try; see tasking/dialogue.py.

    Args:
        planned: the try.
        engine: answers what isn't stored.
        store: keeps what comes.
        place: entered around each request: bounds how many are in flight.
        clean: takes out of an answer what must not be stored.
    """

    def __init__(
        self,
        planned: PlannedTry,
        engine: Answering,
        store: RunStore,
        place: AbstractAsyncContextManager[None] = _NO_BOUND,
        clean: Clean = lambda answer: answer,
    ) -> None:
        self._planned = planned
        self._engine = engine
        self._store = store
        self._place = place
        self._clean = clean
        self._completions: dict[int, Completion] = {}
        self._tool_results: list[ToolResult] = []
        self._asked_by: set[asyncio.Task[object]] = set()
        self.failure: Attempt | None = None
        task_id, sample_id = planned.task_plan.task.spec.id, planned.sample.sample_id
        place_of = (task_id, sample_id, planned.repeat)
        begun = planned.is_begun
        self._stored = {c.step: c for c in store.steps(*place_of)} if begun else {}
        self._stored_results = store.tool_results(*place_of) if begun else ()

    async def __call__(
        self,
        step: int,
        prompt: Prompt,
        *,
        kind: Kind = Kind.GENERATE,
        continuation: Text | TokenIds | None = None,
        tools: tuple[Tool, ...] = (),
    ) -> Completion:
        """Return the stored completion of a step, else ask the engine and store what it says."""
        request = render_request(
            self._planned, step, prompt, kind=kind, continuation=continuation, tools=tools
        )
        if step in self._completions:
            raise self._blame(f"asks two questions as step {step}")
        completion = self._stored.get(step)
        if completion is None:
            completion = await self._answer(request)
        elif completion.key != request.key:
            raise self._blame(f"asks another question in step {step} than the one that is stored")
        self._completions[step] = completion
        return completion

    async def use(
        self, step: int, tool: str, arguments: str, work: Callable[[], Awaitable[str]]
    ) -> str:
        """Return a tool's stored result, else do the work and store what it gives."""
        for known in self._stored_results:
            if (known.step, known.tool, known.arguments) == (step, tool, arguments):
                found = known
                break
        else:
            found = ToolResult(step=step, tool=tool, arguments=arguments, result=await work())
            await self._store.add_tool_result(
                self._planned.task_plan.task.spec.id,
                self._planned.sample.sample_id,
                self._planned.repeat,
                found,
            )
        self._tool_results.append(found)
        return found.result

    def result(self) -> Try:
        """Return the whole try, once its dialogue has ended."""
        if not self._completions:
            raise self._blame("asks nothing")
        return Try(
            task_id=self._planned.task_plan.task.spec.id,
            sample=self._planned.sample,
            repeat=self._planned.repeat,
            completions=tuple(self._completions[step] for step in sorted(self._completions)),
            tool_results=tuple(sorted(self._tool_results, key=lambda r: r.step)),
        )

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._asked_by)

    async def stop(self) -> None:
        """Cancel the requests that a dialogue which failed has left behind."""
        left = self._asked_by - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _answer(self, request: Request) -> Completion:
        asker = asyncio.current_task()
        assert asker is not None
        self._asked_by.add(asker)
        try:
            gated = self._planned.task_plan.task.spec.gated
            async with self._place:
                self._store.expect(request, gated=gated)
                answer = self._clean(await answer_of(self._engine, request))
            if isinstance(answer, Attempt):
                self.failure = answer
                await self._store.add_attempt(answer)
                raise StepFailedError(answer.error)
            await self._store.add_completion(answer)
        finally:
            self._asked_by.discard(asker)
        return answer

    def _blame(self, what: str) -> TaskError:
        sample_id, repeat = self._planned.sample.sample_id, self._planned.repeat
        return TaskError(
            f"the dialogue of {self._planned.task_plan.task.spec.id!r} {what}",
            where=f"sample {sample_id!r}, repeat {repeat}",
            hint="a step must ask the same whenever the try is run again: a changed dialogue needs "
            "another task version",
        )


async def answer_of(engine: Answering, request: Request) -> Completion | Attempt:
    """Return an engine's answer: of a generating engine, or the score of a continuation."""
    if request.tools or _has_media(request.messages):
        raise EngineError(
            f"{request.task_id!r} shows the model media or tools, which no engine takes yet"
        )
    if request.kind is Kind.GENERATE:
        return await engine.answer(request)
    if not isinstance(engine, ScoringEngine):
        raise EngineError(
            f"this engine can't score what {request.task_id!r} asks for",
            hint="vllm and gemma can",
        )
    started_at = time.time()
    prompt, continuation = token_ids_of(engine, request)
    scores = await engine.score([*prompt, *continuation], 1)
    first = len(prompt) - 1  # row i is about token i + 1
    tops = scores.top_ids or ()
    return Completion(
        key=request.key,
        task_id=request.task_id,
        sample_id=request.sample_id,
        repeat=request.repeat,
        step=request.step,
        text=request.continuation.text if isinstance(request.continuation, Text) else "",
        stop_reason=StopReason.STOP,
        prompt_token_ids=prompt,
        token_ids=continuation,
        prompt_tokens=len(prompt),
        completion_tokens=0,  # nothing was generated
        started_at=started_at,
        finished_at=time.time(),
        logprobs=tuple(scores.logprobs[first:]),
        is_greedy=all(
            top[0] == token for top, token in zip(tops[first:], continuation, strict=True)
        ),
    )


def _has_media(messages: tuple[Message, ...]) -> bool:
    for message in messages:  # noqa: SIM110  any() of a generator takes three times as long
        if message.media:
            return True
    return False


def token_ids_of(engine: Answering, request: Request) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the token ids of a scoring request's prompt and of its continuation.

    A text is encoded whole and cut where the prompt alone ends, so that the two are read as one.
    """
    prompt, continuation = request.prompt, request.continuation
    if isinstance(prompt, TokenIds) and isinstance(continuation, TokenIds):
        return prompt.ids, continuation.ids
    if not isinstance(engine, TokenizingEngine):
        raise EngineError(
            "this engine can't say which tokens a text has",
            hint="vllm and gemma can",
        )
    if continuation is None or isinstance(continuation, TokenIds) or isinstance(prompt, TokenIds):
        raise EngineError("a continuation is scored behind a prompt of the same kind")
    text = prompt.text if isinstance(prompt, Text) else engine.render_chat(prompt.messages)
    begin = engine.prefix_ids if isinstance(prompt, Text) else ()
    whole = (*begin, *engine.encode(text + continuation.text))
    n_prompt = len(begin) + len(engine.encode(text))
    n_prompt = min(max(n_prompt, 1), len(whole) - 1)
    return tuple(whole[:n_prompt]), tuple(whole[n_prompt:])
