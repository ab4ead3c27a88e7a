"""A dialogue: what is asked in one try, step by step.

A task without one of its own asks its question and is done. A family's plugin may bring another,
named in the task's YAML: `dialogue: plugin:CLASS`. docs/new-task.md shows one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from g4eval.records import Chat, Completion, Kind, Message, Prompt, Sample, Text, TokenIds, Tool

# (sample, repeat) -> the task's own prompt for it, in the wording of the run.
FirstPrompt = Callable[[Sample, int], tuple[Message, ...]]


class Ask(Protocol):
    """Asks the engine, or the store where the step is there already."""

    async def __call__(
        self,
        step: int,
        prompt: Prompt,
        *,
        kind: Kind = Kind.GENERATE,
        continuation: Text | TokenIds | None = None,
        tools: tuple[Tool, ...] = (),
    ) -> Completion:
        """Return the completion of a step.

        Args:
            step: its number, from 0, given by the dialogue and never by the order of calls: the
                same question must have the same number whenever the try is run again.
            prompt: what the model reads.
            kind: SCORE asks for the log-probability of `continuation` instead of an answer.
            continuation: what is scored.
            tools: that the model may call.

        Raises StepFailedError where the request failed for good: let it pass, the try is ungraded.
        """
        ...

    async def use(
        self, step: int, tool: str, arguments: str, work: Callable[[], Awaitable[str]]
    ) -> str:
        """Return what a tool gave back at a step: stored, else from `work`, and stored then."""
        ...


class Dialogue(Protocol):
    """Runs one try; it keeps nothing between tries and decides by what it is given alone."""

    async def run(self, sample: Sample, repeat: int, ask: Ask) -> None:
        """Ask what the try needs. All that comes back is stored as it comes."""
        ...


@dataclass(frozen=True, slots=True)
class OneQuestion:
    """The dialogue of every task that has no other: one question, one answer."""

    first_prompt: FirstPrompt

    async def run(self, sample: Sample, repeat: int, ask: Ask) -> None:
        """Ask the task's prompt."""
        await ask(0, Chat(self.first_prompt(sample, repeat)))
