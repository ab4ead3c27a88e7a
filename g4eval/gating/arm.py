"""One arm of a comparison: everything the gate reads of a run, and nothing else.

An arm comes from a run folder (load.py) or from a gate file (gate_file.py): engine facts, each
task's protocol, and per (sample, repeat) the outcome, length, flags and hashes. It holds no prompt,
answer, reasoning or target, so gated tasks may be kept in a CI cache.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import NotComparableError
from g4eval.fingerprint import sha256_json
from g4eval.records import Json, Outcome
from g4eval.stats.paired import Floats
from g4eval.store.verdicts import Calibration

MOST_HOLES = 100  # places of a table for each try in it: repeats are numbered without gaps

# Codes of a try; the letters stand in gate files.
INCORRECT, CORRECT, NO_ANSWER, UNGRADED, ABSENT, REFUSED = range(6)
LETTERS = "ICNU.R"
NEVER_AS = "never_as"  # of a protocol: how what was refused for good counts; absent: ungraded
CODES = {
    Outcome.INCORRECT: INCORRECT,
    Outcome.CORRECT: CORRECT,
    Outcome.NO_ANSWER: NO_ANSWER,
    Outcome.UNGRADED: UNGRADED,
}


def _no_texts() -> NDArray[np.uint64]:
    return np.zeros((0, 0), np.uint64)


def _no_flags() -> NDArray[np.bool_]:
    return np.zeros((0, 0), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTask:
    """One task of an arm: [N, k] arrays, samples in the order of their ids."""

    protocol: Mapping[str, Json]  # what must be equal in both arms: versions, sampling, data, ...
    sample_ids: tuple[str, ...]  # sorted
    groups: tuple[str, ...]  # a sample's subtask, "" without one
    outcomes: NDArray[np.int8]  # codes above
    truncated: NDArray[np.bool_]
    open_thoughts: NDArray[np.bool_]  # reasoning that never ended
    looping: NDArray[np.bool_]  # ends in a loop; gating/signals.py
    other_script: NDArray[np.bool_]  # leaves the prompt's script; gating/signals.py
    tokens: Floats  # generated, reasoning included; nan: unknown
    prompt_hashes: NDArray[np.str_]  # "" where unknown
    texts: NDArray[np.uint64] = field(
        default_factory=_no_texts
    )  # 64 bits of each text's hash; 0: unknown
    long_texts: NDArray[np.bool_] = field(
        default_factory=_no_flags
    )  # too long to be equal by chance
    questions: tuple[str, ...] = ()  # a hash of each sample's question; "" where unknown

    def __post_init__(self) -> None:
        """Fill in what an older file or a caller doesn't know."""
        if self.texts.shape != self.outcomes.shape:
            object.__setattr__(self, "texts", np.zeros(self.outcomes.shape, np.uint64))
        if self.long_texts.shape != self.outcomes.shape:
            object.__setattr__(self, "long_texts", np.zeros(self.outcomes.shape, np.bool_))
        if len(self.questions) != len(self.sample_ids):
            object.__setattr__(self, "questions", ("",) * len(self.sample_ids))

    @property
    def n_repeats(self) -> int:
        """How many repeats every sample has, graded or not."""
        whole = (self.outcomes != ABSENT).all(axis=0)
        return len(whole) if whole.all() else int(np.argmin(whole))

    @property
    def scores(self) -> Floats:
        """Return 1.0 right, 0.0 wrong or without an answer, nan not graded."""
        scores = np.where(self.outcomes == CORRECT, 1.0, 0.0)  # refused for good: not graded
        return np.where(self.outcomes >= UNGRADED, np.nan, scores)

    @property
    def n_ungraded(self) -> int:
        """How many tries have no grade, those that can never have one included."""
        return int(((self.outcomes == UNGRADED) | (self.outcomes == REFUSED)).sum())

    @property
    def n_refused(self) -> int:
        """How many tries were refused for good."""
        return int((self.outcomes == REFUSED).sum())

    def until(self, repeats: int) -> "ArmTask":
        """Return the first repeats."""
        return self._cut(slice(None), slice(repeats))

    def only(self, sample_ids: Collection[str]) -> "ArmTask":
        """Return some of the samples."""
        return self._cut([i for i, s in enumerate(self.sample_ids) if s in sample_ids], slice(None))

    def _cut(self, rows: "slice | list[int]", repeats: slice) -> "ArmTask":
        index = range(len(self.sample_ids))
        kept = list(index[rows]) if isinstance(rows, slice) else rows
        return replace(
            self,
            sample_ids=tuple(self.sample_ids[i] for i in kept),
            groups=tuple(self.groups[i] for i in kept),
            outcomes=self.outcomes[rows, repeats],
            truncated=self.truncated[rows, repeats],
            open_thoughts=self.open_thoughts[rows, repeats],
            looping=self.looping[rows, repeats],
            other_script=self.other_script[rows, repeats],
            tokens=self.tokens[rows, repeats],
            prompt_hashes=self.prompt_hashes[rows, repeats],
            texts=self.texts[rows, repeats],
            long_texts=self.long_texts[rows, repeats],
            questions=tuple(self.questions[i] for i in kept),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run as the gate sees it."""

    run_id: str
    seed: int | None  # None: imported, so nobody knows
    facts: Mapping[str, Json]  # of the engine, as `EngineFacts.identity` gives them
    declared: tuple[str, ...]  # names of facts that the user declared
    tasks: Mapping[str, ArmTask]
    config: Mapping[str, Json]  # as the run was asked for
    folder: Path | None = None  # the run folder; None: from a gate file
    calibration: Calibration | None = None  # of this arm as a baseline; gating/calibration.py

    @property
    def fingerprint(self) -> str:
        """The engine's fingerprint: SHA-256, in hex, over its facts."""
        return sha256_json(dict(self.facts))

    def refused_as(self, outcome: int) -> "Arm":
        """Return the arm with what was refused for good given an outcome's code."""
        if not any(task.n_refused for task in self.tasks.values()):
            return self
        tasks = {
            name: replace(task, outcomes=np.where(task.outcomes == REFUSED, outcome, task.outcomes))
            for name, task in self.tasks.items()
        }
        return replace(self, tasks=tasks)

    def digest(self, repeats: Mapping[str, tuple[int, int]]) -> str:
        """Return a hash of the outcomes and lengths in repeats [start, end) of each task."""
        whole = hashlib.sha256()
        for task_id in sorted(repeats):
            start, end = repeats[task_id]
            task = self.tasks[task_id]
            whole.update(json.dumps([task_id, task.sample_ids]).encode())
            for values in (task.outcomes, task.truncated, task.tokens):
                whole.update(np.ascontiguousarray(values[:, start:end]).tobytes())
        return whole.hexdigest()

    def digest_of(self, used: Mapping[str, NDArray[np.bool_]]) -> str:
        """Return a hash of the outcomes and lengths of some tries, [N, k] flags by task."""
        whole = hashlib.sha256()
        for task_id in sorted(used):
            task, flags = self.tasks[task_id], used[task_id]
            whole.update(json.dumps([task_id, task.sample_ids]).encode())
            whole.update(np.argwhere(flags).astype(np.int64).tobytes())
            for values in (task.outcomes, task.truncated, task.tokens):
                whole.update(np.ascontiguousarray(values[flags]).tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TryRecord:
    """One try, as a reader of runs hands it over."""

    sample_id: str
    repeat: int
    outcome: Outcome
    truncated: bool = False
    open_thought: bool = False
    looping: bool = False
    other_script: bool = False
    tokens: int | None = None
    prompt_hash: str | None = None
    refused: bool = False  # for good, and not scored
    text_hash: str | None = None  # of reasoning and text, in hex
    is_long: bool = False  # its text: gating/copies.py


def build_task(
    protocol: Mapping[str, Json],
    samples: Mapping[str, str],
    tries: Iterable[TryRecord],
    questions: Mapping[str, str] | None = None,
) -> ArmTask:
    """Return a task's arrays from its samples (id to subtask) and tries in any order."""
    rows = list(tries)
    ids = tuple(sorted(samples))
    place = {sample_id: i for i, sample_id in enumerate(ids)}
    shape = (len(ids), max((t.repeat + 1 for t in rows), default=0))
    if shape[0] * shape[1] > MOST_HOLES * max(len(rows), 1000):
        raise NotComparableError(
            f"{len(rows):,} tries are numbered up to repeat {shape[1] - 1:,}: a table of samples "
            "and repeats would be nearly empty",
            hint="number each sample's repeats 0, 1, 2, … and import them again",
        )
    outcomes = np.full(shape, ABSENT, np.int8)
    truncated, open_thoughts = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    looping, other_script = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    tokens = np.full(shape, np.nan)
    hashes = np.full(shape, "", "U64")
    texts, long_texts = np.zeros(shape, np.uint64), np.zeros(shape, np.bool_)
    for t in rows:
        at = place[t.sample_id], t.repeat
        outcomes[at] = REFUSED if t.refused else CODES[t.outcome]
        truncated[at], open_thoughts[at] = t.truncated, t.open_thought
        looping[at], other_script[at] = t.looping, t.other_script
        if t.tokens is not None:
            tokens[at] = t.tokens
        if t.prompt_hash:
            hashes[at] = t.prompt_hash
        if t.text_hash:
            texts[at], long_texts[at] = _short_hash(t.text_hash), t.is_long
    return ArmTask(
        protocol=dict(protocol),
        sample_ids=ids,
        groups=tuple(samples[i] for i in ids),
        outcomes=outcomes,
        truncated=truncated,
        open_thoughts=open_thoughts,
        looping=looping,
        other_script=other_script,
        tokens=tokens,
        prompt_hashes=hashes,
        texts=texts,
        long_texts=long_texts,
        questions=tuple((questions or {}).get(i, "") for i in ids),
    )


def _short_hash(text_hash: str) -> int:
    """Return 64 bits of a hash, never 0."""
    try:
        return int(text_hash[:16], 16) or 1
    except ValueError:
        return int.from_bytes(hashlib.sha256(text_hash.encode()).digest()[:8], "big") or 1


def worst_case(base: Arm, candidate: Arm) -> tuple[Arm, Arm]:
    """Return the arms as a gate judges them: refused tries count against the candidate.

    Its own as wrong and the baseline's as right, unless both runs were asked to count them as wrong
    (`--never-as wrong`).
    """
    as_wrong = any(NEVER_AS in task.protocol for task in base.tasks.values())
    return (
        base.refused_as(NO_ANSWER if as_wrong else CORRECT),
        candidate.refused_as(NO_ANSWER if as_wrong else INCORRECT),
    )


def common_tasks(base: Arm, candidate: Arm, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the tasks to compare; raises NotComparableError where the arms' tasks differ."""
    if wanted is not None:
        for arm in (base, candidate):
            missing = [task_id for task_id in wanted if task_id not in arm.tasks]
            if missing:
                raise NotComparableError(
                    f"tasks: {', '.join(missing)} of the policy's tasks is not in {arm.run_id!r}"
                )
        return wanted
    if set(base.tasks) != set(candidate.tasks):
        raise NotComparableError(
            f"tasks: baseline {sorted(base.tasks)}, candidate {sorted(candidate.tasks)}",
            hint="name the tasks to compare in the policy's `tasks`, or run the missing ones",
        )
    if not base.tasks:
        raise NotComparableError("neither run has a task")
    return tuple(sorted(base.tasks))
