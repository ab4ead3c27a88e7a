"""The nouns that travel between the parts: frozen records, no behaviour past simple properties.

The data's way: Sample -> Request -> Completion (or Attempt) -> Try -> Grade -> Estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from g4eval.config import SamplingParams

# A value that JSON can hold; mypy can't follow a recursive alias over Mapping, hence Any.
Json: TypeAlias = Any


class StopReason(StrEnum):
    """Why generation ended."""

    STOP = "stop"
    LENGTH = "length"  # the token budget or the context was used up
    FILTERED = "filtered"


class Thought(StrEnum):
    """What became of the reasoning in a completion."""

    NONE = "none"  # no reasoning was expected or seen
    CLOSED = "closed"  # reasoning seen and ended, by a marker or by the server's own field
    OPEN = "open"  # reasoning that never ended: there is no visible answer


class Outcome(StrEnum):
    """What a grade says. Only the first three are about the model."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"  # scored 0
    UNGRADED = "ungraded"  # our failure: counted apart, never scored


class Kind(StrEnum):
    """What is asked of an engine."""

    GENERATE = "generate"
    SCORE = "score"  # the log-probability of a given continuation


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A picture or a sound in a message: the bytes lie in the run's `media/`, under their hash."""

    sha256: str
    media_type: str  # image/png


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that the model asked for."""

    name: str
    arguments: str  # as the model wrote them, JSON as a rule
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a prompt."""

    role: str  # system, user, assistant or tool
    content: str
    media: tuple[Media, ...] = ()  # before the text
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant's turn
    call_id: str = ""  # of a tool's turn: the call it answers


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, for the model's chat template."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that goes to the model as it is, no chat template around it."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Token ids that go to the model as they are."""

    ids: tuple[int, ...]


Prompt: TypeAlias = Chat | Text | TokenIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Json]  # a JSON schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a task."""

    sample_id: str  # stable: the same in every run, subset and version of the data
    target: Json  # what the task's grader compares with; its shape is the grader's business
    fields: Mapping[str, Json] = field(default_factory=dict)  # what the prompt template may name
    groups: Mapping[str, str] = field(default_factory=dict)  # for splits: {"difficulty": "hard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One step of a try, ready to be sent. Equal keys are equal requests."""

    key: str  # SHA-256 of everything below and of the engine's fingerprint, hex
    task_id: str
    task_version: int
    sample_id: str
    repeat: int  # 0-based
    prompt: Prompt
    sampling: SamplingParams
    seed: int  # in [0, 2**31)
    step: int = 0  # of the try; the dialogue numbers them
    kind: Kind = Kind.GENERATE
    continuation: Text | TokenIds | None = None  # what is scored, behind the prompt
    tools: tuple[Tool, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; a text is one user's turn, token ids are none."""
        match self.prompt:
            case Chat():
                return self.prompt.messages
            case Text():
                return (Message(role="user", content=self.prompt.text),)
            case TokenIds():
                return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What came back for one request; never changed once stored."""

    key: str
    task_id: str
    sample_id: str
    repeat: int
    text: str  # the visible answer, reasoning and markers removed
    stop_reason: StopReason
    thought: Thought = Thought.NONE
    reasoning: str | None = None  # None: the engine reported none
    raw_text: str | None = None  # as generated, where it differs from `text`; None: it doesn't
    prompt_token_ids: Sequence[int] | None = None  # None: the engine can't tell
    token_ids: Sequence[int] | None = None  # generated ids, reasoning included
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    completion_tokens: int | None = None  # reasoning included
    started_at: float = 0.0  # seconds since the epoch, as the engine took the request up
    finished_at: float = 0.0
    finish_word: str | None = None  # a server's word for its end that stands in no table
    model: str | None = None  # as the server names it in its answer; None: it doesn't say
    # Imported only: the right letter, where the recorded prompt had the options in another order.
    target: str | None = None
    step: int = 0  # of the try
    logprobs: Sequence[float] | None = None  # of a scored continuation: one a token of `token_ids`
    is_greedy: bool | None = None  # scored: each of its tokens was the most likely one

    @property
    def is_truncated(self) -> bool:
        """Whether the budget or the context cut it short."""
        return self.stop_reason is StopReason.LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A request that failed for good in this session; the next session sends it again.

    A refused one can never succeed (content that is refused, a prompt longer than the context): it
    is sent again only where that is asked for.
    """

    key: str
    task_id: str
    sample_id: str
    repeat: int
    error: str  # what happened, free of keys and passwords
    at: float  # seconds since the epoch
    refused: bool = False
    step: int = 0  # of the try


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool gave back in a try; like a completion, never changed once stored."""

    step: int  # of the completion that asked for it
    tool: str
    arguments: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One sample, one repeat, and all that came of it: what a grader judges."""

    task_id: str
    sample: Sample
    repeat: int
    completions: tuple[Completion, ...]  # one or more, in order of their steps
    tool_results: tuple[ToolResult, ...] = ()

    @property
    def completion(self) -> Completion:
        """The last one: the answer."""
        return self.completions[-1]

    @property
    def key(self) -> str:
        """The key under which its grades are stored: the last completion's."""
        return self.completions[-1].key


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTry:
    """A try as the store knows it, which keeps no more of its sample than the id."""

    completions: tuple[Completion, ...]
    tool_results: tuple[ToolResult, ...] = ()

    def with_sample(self, samples: Mapping[str, Sample]) -> Try:
        """Return the try, its sample found by its id."""
        last = self.completions[-1]
        return Try(
            task_id=last.task_id,
            sample=samples[last.sample_id],
            repeat=last.repeat,
            completions=self.completions,
            tool_results=self.tool_results,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """One grader's judgement of one try. Grading again adds grades, it changes none."""

    key: str  # of the try's last completion
    grader: str
    grader_version: int
    outcome: Outcome
    extraction: str | None = None  # the answer found in the text
    lenient_extraction: str | None = None  # by the second reading, which never scores
    lenient_outcome: Outcome | None = None  # None: the grader has no second reading
    verdict: str | None = None  # code only: AC WA TLE MLE OLE RTE CE IE
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """Teacher-forced log-probabilities of one token sequence of length T, in nats.

    `logprobs[i]` is log p(token i+1 | tokens 0..i), so there are T-1. With top-k, row i of
    `top_ids` and `top_logprobs` holds the K most likely tokens at that place, most likely first;
    what they leave over is one bucket, never renormalised.
    """

    logprobs: Sequence[float]  # [T-1]
    top_ids: Sequence[Sequence[int]] | None = None  # [T-1, K]
    top_logprobs: Sequence[Sequence[float]] | None = None  # [T-1, K]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval and how it was made."""

    low: float
    high: float
    method: str  # "wilson", "hierarchical beta-binomial", "t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A score with its errors and counts (statistics: docs/statistics.md).

    Ungraded completions are left out of `value` and counted; completions without an answer score 0.
    """

    value: float  # fraction in [0, 1]; nan with nothing graded
    se_fixed: float | None  # these samples, new tries; None at one repeat
    se_super: float | None  # samples like these; None at one sample
    interval: Interval | None  # for these samples, where k > 1; None with nothing graded
    interval_super: Interval | None  # for samples like these; None at one sample
    n_samples: int
    n_repeats: int  # the largest number of graded repeats of a sample
    n_graded: int
    n_truncated: int
    n_no_answer: int
    n_ungraded: int
    if_truncated_right: float  # the value, had every truncated completion been right
    if_truncated_left_out: float  # the value without the truncated completions
