"""Scripted answers, delays and faults: the engine of tests, benchmarks and first tries.

It reads no prompt. Answers come from a script file, or are made to be right with a planted
probability, so every table made with it says that its numbers are invented. What it answers to a
request depends on the request's seed alone, never on order or concurrency.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from g4eval.config import parse_model
from g4eval.engines.base import Answers, EngineConfig, EngineFacts
from g4eval.errors import ConfigError, EngineError, UsageError
from g4eval.jsonlines import read_json_lines
from g4eval.records import (
    Attempt,
    Completion,
    Message,
    Request,
    StopReason,
    TokenIds,
    TokenScores,
)
from g4eval.responses import build_attempt, build_completion, parse_stop_reason

VOCABULARY = 256  # its tokens are bytes
REQUESTS_PER_TURN = 16  # without delays, others get a turn so often

# Raised only when what it answers to a request may change: it is part of every run's identity.
ENGINE_VERSION = "0.1.0"


class FakeOptions(BaseModel):
    """`--set engine.KEY=VALUE` of engine `fake`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float = Field(default=0.7, ge=0, le=1)  # mean over samples
    spread: float = Field(default=0.3, ge=0, le=1)  # samples lie within accuracy ± spread
    no_answer_share: float = Field(default=0.0, ge=0, le=1)
    truncated_share: float = Field(default=0.0, ge=0, le=1)
    failed_share: float = Field(default=0.0, ge=0, le=1)  # requests that fail for good
    refused_share: float = Field(default=0.0, ge=0, le=1)  # requests that can never succeed
    thinking: bool = False  # put a thought before each answer
    same_text: bool = False  # what an engine that ignores seeds would do
    text_bytes: int = Field(default=0, ge=0)  # pad each answer to this length
    delay_seconds: float = Field(default=0.0, ge=0)  # mean; drawn per request, exponential
    concurrency: int = Field(default=64, ge=1)
    stop_after: int | None = Field(default=None, ge=0)  # then the engine breaks
    journal: Path | None = None  # append the key of each request answered, to see what was asked
    script: Path | None = None  # JSON lines: sample_id, repeat?, text, reasoning?, stop_reason?
    token_ids: bool = False  # give ids: the UTF-8 bytes of prompt and text
    drift: float = Field(default=0.0, ge=0)  # SD by which scored logits differ from those of 0
    quantization: str = "none"  # declared, to tell two arms apart
    model_facts: Mapping[str, str] = Field(default_factory=dict)  # any other facts, as declared


class FakeEngine:
    """An Engine that invents completions.

    Args:
        options: see FakeOptions.
        model: the name the run is stored under.
        answers: makes a right or a wrong answer to a sample; used where no script names it.
    """

    def __init__(
        self, options: FakeOptions, *, model: str = "fake", answers: Answers | None = None
    ) -> None:
        self._options = options
        self._model = model
        self._answers = answers or (lambda *_: None)
        self._script = _read_script(options.script) if options.script else {}
        self._places = asyncio.Semaphore(options.concurrency)
        self._n_taken = self._n_answered = 0

    @classmethod
    def configure(cls, config: EngineConfig) -> Self:
        """Make the engine from `--set engine.KEY=VALUE`; it needs no model."""
        options = parse_model(FakeOptions, config.options, where="--set", prefix="engine.")
        return cls(options, model=config.model or "fake", answers=config.answers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def describe(self) -> EngineFacts:
        """Return facts that differ wherever an option can move a score."""
        scoring = self._options.model_dump(
            mode="json",
            exclude={"concurrency", "delay_seconds", "failed_share", "journal", "script"}
            | {"stop_after", "refused_share"},
        )
        return EngineFacts(
            engine="fake",
            engine_version=ENGINE_VERSION,
            model=self._model,
            weights_fingerprint="none",
            dtype="none",
            quantization=self._options.quantization,
            kv_cache_dtype="none",
            attention_backend="none",
            parallelism="none",
            speculative_decoding="none",
            chat_template_hash="none",
            thinking="on" if self._options.thinking else "off",
            reasoning_parser="none",
            other={**scoring, "script": _hash_of(self._options.script)},
            operation={"concurrency": self._options.concurrency},
        )

    @property
    def capacity(self) -> int:
        """The option `concurrency`."""
        return self._options.concurrency

    async def answer(self, request: Request) -> Completion | Attempt:
        """Return an invented completion once its delay has ended."""
        async with self._places:
            started_at = time.time()
            delay = self._delay(request)
            self._n_taken += 1
            if delay or self._n_taken % REQUESTS_PER_TURN == 0:
                await asyncio.sleep(delay)
            self._count(request)
            return self._answer(request, started_at)

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Byte 0, so that an empty text can be scored too."""
        return (0,)

    def encode(self, text: str) -> list[int]:
        """Return the UTF-8 bytes of a text."""
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of bytes."""
        return bytes(token_ids).decode(errors="replace")

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return the contents, nothing between them."""
        return "".join(message.content for message in messages)

    async def score(self, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
        """Score bytes by an invented bigram model; option `drift` moves its logits."""
        outside = next((i for i in token_ids if not 0 <= i < VOCABULARY), None)
        if outside is not None:
            raise UsageError(
                f"token id {outside} is outside the vocabulary of {VOCABULARY}",
                where="engine fake",
                hint="its tokens are bytes: give ids from 0 to 255",
            )
        table = _bigrams(self._options.drift)
        rows = table[np.asarray(token_ids[:-1])]
        following = np.asarray(token_ids[1:])
        logprobs = rows[np.arange(len(rows)), following]
        if not top_k:
            return TokenScores(logprobs=logprobs.tolist())
        ids = np.argsort(-rows, axis=1, kind="stable")[:, :top_k]
        return TokenScores(
            logprobs=logprobs.tolist(),
            top_ids=ids.tolist(),
            top_logprobs=np.take_along_axis(rows, ids, axis=1).tolist(),
        )

    def _count(self, request: Request) -> None:
        """Note a request in the journal; raises EngineError once `stop_after` are answered."""
        most = self._options.stop_after
        if most is not None and self._n_answered >= most:
            raise EngineError(
                f"engine fake stopped after {most} requests, as engine.stop_after asks",
                hint="run the same command without it; what is stored is not made again",
            )
        self._n_answered += 1
        if self._options.journal is not None:
            with self._options.journal.open("a", encoding="utf-8") as journal:
                journal.write(request.key + "\n")

    def _delay(self, request: Request) -> float:
        if not self._options.delay_seconds:
            return 0.0
        return -math.log(1 - _chance("delay", request.seed)) * self._options.delay_seconds

    def _answer(self, request: Request, started: float) -> Completion | Attempt:
        options = self._options
        is_refused = _happens("refused", request.seed, options.refused_share)
        if is_refused or _happens("failed", request.seed, options.failed_share):
            words = "engine fake was asked to fail this one"
            return build_attempt(request, words, refused=is_refused)
        line = self._script.get((request.sample_id, request.repeat)) or self._script.get(
            (request.sample_id, None)
        )
        if line is not None:
            text, reasoning = str(line["text"]), line.get("reasoning")
            stop_reason = parse_stop_reason(line.get("stop_reason"))
        else:
            text, reasoning, stop_reason = self._invent(request)
        tokens = len(text) // 4 + len(reasoning or "") // 4 + 1
        prompt = _text_of(request)
        return build_completion(
            request,
            text,
            stop_reason,
            thinking=options.thinking,
            reasoning=reasoning,
            prompt_token_ids=list(prompt.encode()) if options.token_ids else None,
            token_ids=list(text.encode()) if options.token_ids else None,
            prompt_tokens=len(prompt) // 4 + 1,
            completion_tokens=tokens,
            started_at=started,
            finished_at=time.time(),
        )

    def _invent(self, request: Request) -> tuple[str, str | None, StopReason]:
        options = self._options
        seed = "same" if options.same_text else request.seed
        ease = 2 * _chance("ease", request.sample_id) - 1
        right = _chance("right", seed) < options.accuracy + options.spread * ease
        answer = self._answers(request.task_id, request.sample_id, request.repeat, right)
        if answer is None or _happens("no answer", seed, options.no_answer_share):
            answer = "I could not find it."
        marks = f"[{seed}] "
        padding = "so " * (max(0, options.text_bytes - len(answer) - len(marks)) // 3)
        if _happens("truncated", seed, options.truncated_share):
            opening = "<|channel>thought\n" if options.thinking else ""
            return opening + marks + padding, None, StopReason.LENGTH
        if options.thinking:
            return f"<|channel>thought\n{marks}{padding}<channel|>{answer}", None, StopReason.STOP
        return marks + padding + answer, None, StopReason.STOP


def _text_of(request: Request) -> str:
    """Return what a request asks, of a chat the contents."""
    if isinstance(request.prompt, TokenIds):
        return bytes(request.prompt.ids).decode(errors="replace")
    return "".join(message.content for message in request.messages)


@cache
def _bigrams(drift: float) -> NDArray[np.float64]:
    """Return log p of each byte after each byte, [256, 256]."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((256, 256)) + drift * rng.standard_normal((256, 256))
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def _chance(what: str, seed: object) -> float:
    """Return a number in [0, 1) that depends on the two arguments alone."""
    digest = hashlib.sha256(f"{what}:{seed}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _happens(what: str, seed: object, share: float) -> bool:
    """Return whether this one is in a share of all; a share of 0 is nobody's."""
    return share > 0 and _chance(what, seed) < share


def _hash_of(path: Path | None) -> str:
    return "none" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _read_script(path: Path) -> dict[tuple[str, int | None], dict[str, Any]]:
    script: dict[tuple[str, int | None], dict[str, Any]] = {}
    for number, row in read_json_lines(path, error=ConfigError):
        if not isinstance(row.get("sample_id"), str) or not isinstance(row.get("text"), str):
            raise ConfigError("lacks the text sample_id or text", where=f"{path}:{number}")
        script[row["sample_id"], row.get("repeat")] = row
    return script
