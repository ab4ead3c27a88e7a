"""What the report shows of a run: small frozen records that a page can be written from.

`from_store.py` makes them from a run folder; the pages know nothing else. Texts are the only big
part of a run, so they are read lazily, one sample at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from g4eval.records import Estimate, Interval, Json, Outcome
from g4eval.report.reproduction import Measurement
from g4eval.report.words import slug
from g4eval.store.verdicts import VerdictRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatView:
    """One graded try at a sample, without its texts."""

    repeat: int
    outcome: Outcome
    is_truncated: bool = False
    readings_disagree: bool = False  # the second extractor would have graded otherwise
    completion_tokens: int | None = None  # None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """One sample and all its tries."""

    sample_id: str
    groups: Mapping[str, str] = field(default_factory=dict)  # {"difficulty": "hard"}
    repeats: tuple[RepeatView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTest:
    """One test of a judged program. Input, expected and got may be shortened or unknown."""

    verdict: str
    input: str | None = None
    expected: str | None = None
    got: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatTexts:
    """The texts of one try, the model's and never trusted.

    The long ones are zstd frames of UTF-8 text as the store keeps them, so that a report copies
    gigabytes without unpacking them (`store.schema.pack_text` makes one).
    """

    repeat: int
    prompt: bytes | None = None  # a frame of JSON: [{"role", "content"}]; None: not stored
    text: bytes | None = None  # a frame
    reasoning: bytes | None = None  # a frame
    stop_reason: str = "stop"
    extraction: str | None = None
    lenient_extraction: str | None = None
    verdict: str | None = None
    notes: tuple[str, ...] = ()  # what the grader says: "the thought was not closed"
    tests: tuple[JudgedTest, ...] = ()
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    seconds: float | None = None  # generation, wall time


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTexts:
    """The texts of one sample."""

    sample_id: str
    target: Json = None  # None: not shown
    repeats: tuple[RepeatTexts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """A second metric of a task: pass@8, the harmonic mean."""

    name: str
    value: float  # fraction
    interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """The score on a part of a task."""

    group: str  # "difficulty"
    value: str  # "hard"
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One task of a run."""

    task_id: str
    title: str
    version: int
    measurement: Measurement
    is_gated: bool = False
    metrics: tuple[MetricView, ...] = ()
    groups: tuple[GroupView, ...] = ()
    samples: tuple[SampleView, ...] = ()
    n_planned: int  # completions the run asks for
    tokens_per_second: float | None = None  # generated, over the time the engine was busy
    hours: float | None = None
    cautions: tuple[str, ...] = ()  # "text not verified", "partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of the manifest in words."""

    label: str
    value: str
    note: str = ""  # "declared", "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run, ready to be written as pages."""

    run_id: str
    model: str
    engine: str
    summary: str  # the manifest as a sentence or three
    facts: Mapping[str, tuple[Fact, ...]]  # section title -> lines
    tasks: tuple[TaskView, ...]
    command: str = ""  # makes the run again
    updated_at: float = 0.0  # seconds since the epoch, of the last completion or grade
    is_finished: bool = True
    gate_verdicts: tuple[VerdictRecord, ...] = ()  # this run as the candidate
    read_texts: Callable[[str], Iterator[SampleTexts]]  # of a task, samples in the view's order
    nth: int = 1  # of the runs in one report whose ids make one file name

    @property
    def slug(self) -> str:
        """The run as part of a file name, its own within a report."""
        name = slug(self.run_id)
        return name if self.nth == 1 else f"{name}.{self.nth}"

    @property
    def label(self) -> str:
        """The run's id, told apart from another of the same id."""
        return self.run_id if self.nth == 1 else f"{self.run_id} ({self.nth})"

    def task(self, task_id: str) -> TaskView | None:
        """Return the task of that id; None: the run hasn't it."""
        return next((task for task in self.tasks if task.task_id == task_id), None)
