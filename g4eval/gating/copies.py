"""Are a sample's repeats tries of their own, or copies of each other?

At temperature 0, or where an engine repeats itself, four repeats say what one does. Equal means
equal text, reasoning included, inside one arm and one question. Below LONG_TOKENS equal texts may
be chance (a letter, "Yes."), so they only make the sample count as one try; longer ones are copies,
and many of them leave nothing to compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from g4eval.gating.arm import ABSENT, ArmTask
from g4eval.stats.noise import Flags

LONG_TOKENS = 64
LABELLED = ("aime", "gpqa", "livecodebench")  # their groups label questions, and aren't drawn whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What one arm's texts show of one task."""

    is_known: bool  # whether any text's hash is, or there is none; failed requests have none
    n_tries: int  # whose text is known
    n_long: int  # that equal an earlier try of their question
    n_short: int  # the same, of fewer than LONG_TOKENS tokens
    samples: Flags  # [N] with an equal text, long or short

    @property
    def long_share(self) -> float:
        """Share of tries that are copies beyond chance."""
        return self.n_long / max(1, self.n_tries)

    @property
    def short_share(self) -> float:
        """Share of tries that may be."""
        return self.n_short / max(1, self.n_tries)


def find_copies(task: ArmTask, used: Flags) -> Copies:
    """Return the copies among the used tries, [N, k]."""
    there = used & (task.outcomes != ABSENT)
    known = there & (task.texts != 0)
    questions = clusters_of(task)
    sample, repeat = np.nonzero(known)
    keys = np.stack([questions[sample].astype(np.uint64), task.texts[sample, repeat]], axis=1)
    _, first, inverse, counts = np.unique(
        keys, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    is_equal = counts[inverse.ravel()] > 1
    is_later = np.ones(len(sample), np.bool_)
    is_later[first] = False
    is_long = task.long_texts[sample, repeat]
    samples = np.zeros(len(task.sample_ids), np.bool_)
    samples[sample[is_equal]] = True
    return Copies(
        is_known=bool(known.any() or not there.any()),
        n_tries=int(known.sum()),
        n_long=int((is_later & is_long).sum()),
        n_short=int((is_later & ~is_long).sum()),
        samples=samples,
    )


def clusters_of(task: ArmTask) -> NDArray[np.int64]:
    """Return [N] numbers, equal for samples whose questions have one text.

    Where every sample seems to have the same question, the prompts don't tell questions apart
    (what differs stands elsewhere), and each sample is its own.
    """
    own = np.arange(len(task.sample_ids))
    if not any(task.questions) or len(set(task.questions)) == 1:
        return own
    first: dict[str, int] = {}
    return np.array([first.setdefault(q, i) if q else i for i, q in enumerate(task.questions)])


def subtasks_of(task_id: str, task: ArmTask) -> tuple[str, ...]:
    """Return [N] the subtasks that samples like these would come in; all "" without any."""
    return ("",) * len(task.groups) if task_id.startswith(LABELLED) else task.groups


def merged(*clusters: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the clusters that either arm shows; None: every question stands once."""
    several = [c for c in clusters if len(np.unique(c)) < len(c)]
    return several[0] if several else None


def words(arm: str, found: Copies, task_id: str) -> str | None:
    """Say what an arm's texts show; None: nothing to tell."""
    if not found.is_known:
        return f"{task_id}: whether {arm} repeats itself is unknown: no hashes of its texts"
    if found.n_long:
        return (
            f"{task_id}: {found.long_share:.1%} of {arm}'s tries are copies of another one "
            f"({LONG_TOKENS} tokens or more)"
        )
    if found.n_short:
        return (
            f"{task_id}: {found.short_share:.1%} of {arm}'s tries equal another one in fewer than "
            f"{LONG_TOKENS} tokens, perhaps by chance: such a sample counts as one try"
        )
    return None


def what_to_do(tasks: Sequence[str]) -> str:
    """Say how to get a decision where repeats are copies."""
    once = ", ".join(f"{task}: 1" for task in tasks)
    return (
        "sample at a temperature above 0, have the engine take a seed with each request, or, where "
        f"one answer is all there is, compare question by question: `repeats: {{{once}}}` in "
        "gate.yaml (Tango's and McNemar's tests)"
    )
