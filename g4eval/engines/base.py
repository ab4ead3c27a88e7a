"""The Engine protocol, what an engine says of itself, and the table of engines.

Every implementation passes `tests/contract/test_engine.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from g4eval.fingerprint import sha256_json
from g4eval.profile import Profile
from g4eval.records import Attempt, Completion, Json, Message, Request, TokenScores
from g4eval.registry import Registry

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine is: everything that can move a score, and apart from it what can't.

    A fact the engine can't find out is `"unknown"`, unless the user declared it with
    `--set engine.KEY=VALUE`; then its name stands in `declared`.
    """

    engine: str  # vllm, openai, gemma, fake
    engine_version: str
    model: str
    weights_fingerprint: str = UNKNOWN
    dtype: str = UNKNOWN
    quantization: str = UNKNOWN  # "none" where the weights are as published
    kv_cache_dtype: str = UNKNOWN
    attention_backend: str = UNKNOWN
    parallelism: str = UNKNOWN  # "tp1" "tp2 dp4"
    speculative_decoding: str = UNKNOWN  # "none" without
    chat_template_hash: str = UNKNOWN  # SHA-256; "none" where prompts go out plain
    thinking: str = UNKNOWN  # on, off
    reasoning_parser: str = UNKNOWN
    server_address: str = "none"  # without user, password and key parts
    other: Mapping[str, Json] = field(default_factory=dict)  # more facts that can move a score
    context_tokens: int | None = None  # prompt and completion together; None: unknown
    operation: Mapping[str, Json] = field(default_factory=dict)  # concurrency, batch, device names
    declared: tuple[str, ...] = ()

    def identity(self) -> dict[str, Json]:
        """Return the facts that can move a score, as the fingerprint sees them."""
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name in self.__slots__
            if name not in ("operation", "declared")
            for value in (getattr(self, name),)
        }

    @property
    def room_tokens(self) -> int | None:
        """The context, however it was learned: `context_tokens`, or a fact of operation."""
        limit = self.operation.get("context_limit")
        return self.context_tokens or (limit if isinstance(limit, int) else None)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over `identity()`."""
        return sha256_json(self.identity())


# (task_id, sample_id, repeat, right) -> a visible answer, or None where nobody can make one.
Answers = Callable[[str, str, int, bool], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What an engine is made from."""

    model: str | None  # hub id, path or a server's name for it
    options: Mapping[str, Json] = field(default_factory=dict)  # `--set engine.KEY=VALUE`
    profile: Profile | None = None  # what is known of the model
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # HTTP, of the user
    answers: Answers | None = None  # engine fake only: it reads no prompts


class Engine(Protocol):
    """Answers one request at a time; an async context manager that loads and frees the model.

    Laziness, order, concurrency and back-pressure are the pipeline's: it keeps `capacity` requests
    and a tenth more in flight.
    """

    @classmethod
    def configure(cls, config: EngineConfig) -> Self:
        """Check the configuration and what it needs; load nothing.

        Raises ConfigError for an option that is off, NotReadyError with everything that is missing.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def describe(self) -> EngineFacts:
        """Return the facts of this engine; callable once entered."""
        ...

    @property
    def capacity(self) -> int:
        """How many requests are worth having in flight now, 1 or more; it may change."""
        ...

    async def answer(self, request: Request) -> Completion | Attempt:
        """Return the completion of a request, or the Attempt of one that failed for good.

        Any number may be called at once; one that fails stops no other. Cancelling the awaiting
        task aborts that request and nothing else. Raises EngineError where the engine itself can't
        go on.
        """
        ...


@runtime_checkable
class ScoringEngine(Protocol):
    """An engine that can also score given tokens."""

    async def score(self, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
        """Return log p of each token after the first, given the ones before it.

        Args:
            token_ids: [T], T >= 2.
            top_k: K; with K > 0 also the K most likely tokens at each place.
        """
        ...


@runtime_checkable
class TokenizingEngine(Protocol):
    """An engine that can say which tokens a text has."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The ids that stand before every text: `<bos>`, or none."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids [T], without a prefix; control tokens in it are recognised."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids [T], control tokens kept."""
        ...

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the model reads it, ready for the model's turn."""
        ...


@runtime_checkable
class NotingEngine(Protocol):
    """An engine that has something to say before it loads: its memory plan."""

    @property
    def notes(self) -> Sequence[str]:
        """One line each."""
        ...


ENGINES = Registry[Engine](
    "engine",
    {
        "fake": "g4eval.engines.fake:FakeEngine",
        "gemma": "g4eval.engines.gemma.engine:GemmaEngine",
        "openai": "g4eval.engines.openai_http:OpenAIEngine",
        "vllm": "g4eval.engines.vllm_local:VllmEngine",
    },
)
