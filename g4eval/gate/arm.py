"""One arm of a comparison: everything the gate reads of a run, and nothing else.

An arm comes from a run folder or from a gate file (`g4eval export RUN --to gate`): engine facts,
each task's protocol, and per (sample, repeat) the outcome, length, flags and prompt hash. It
holds no prompt, answer, reasoning or target, so gated tasks may be kept in a CI cache.
"""

import hashlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import NotComparableError, UsageError
from g4eval.fingerprint import sha256_json
from g4eval.output import replacing, safe_json
from g4eval.records import Json, Outcome
from g4eval.stats.paired import Floats
from g4eval.store.verdicts import Calibration

FORMAT = "g4eval-gate"
FORMAT_VERSION = 2

OF_A_MACHINE = ("data_dir", "tasks_dir", "runs_dir")  # keys of a config that gate files leave out

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTask:
    """One task of an arm: [N, k] arrays, samples in the order of their ids."""

    protocol: Mapping[str, Json]  # what must be equal in both arms: versions, sampling, data, ...
    sample_ids: tuple[str, ...]  # sorted
    groups: tuple[str, ...]  # a sample's subtask, "" without one
    outcomes: NDArray[np.int8]  # codes above
    truncated: NDArray[np.bool_]
    open_thoughts: NDArray[np.bool_]  # reasoning that never ended
    looping: NDArray[np.bool_]  # ends in a loop; gate/signals.py
    other_script: NDArray[np.bool_]  # leaves the prompt's script; gate/signals.py
    tokens: Floats  # generated, reasoning included; nan: unknown
    prompt_hashes: NDArray[np.str_]  # "" where unknown

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
    calibration: Calibration | None = None  # of this arm as a baseline; gate/calibration.py

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


def build_task(
    protocol: Mapping[str, Json], samples: Mapping[str, str], tries: Iterable[TryRecord]
) -> ArmTask:
    """Return a task's arrays from its samples (id to subtask) and tries in any order."""
    rows = list(tries)
    ids = tuple(sorted(samples))
    place = {sample_id: i for i, sample_id in enumerate(ids)}
    shape = (len(ids), max((t.repeat + 1 for t in rows), default=0))
    outcomes = np.full(shape, ABSENT, np.int8)
    truncated, open_thoughts = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    looping, other_script = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    tokens = np.full(shape, np.nan)
    hashes = np.full(shape, "", "U64")
    for t in rows:
        at = place[t.sample_id], t.repeat
        outcomes[at] = REFUSED if t.refused else CODES[t.outcome]
        truncated[at], open_thoughts[at] = t.truncated, t.open_thought
        looping[at], other_script[at] = t.looping, t.other_script
        if t.tokens is not None:
            tokens[at] = t.tokens
        if t.prompt_hash:
            hashes[at] = t.prompt_hash
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
    )


def write_gate_file(arm: Arm, path: Path | None) -> None:
    """Write an arm as one JSON file; None: on stdout."""
    text = json.dumps(_to_json(arm), ensure_ascii=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    with replacing(path) as draft:
        draft.write_text(safe_json(text), encoding="utf-8")


def read_gate_file(path: Path) -> Arm:
    """Return the arm in a gate file; raises UsageError for anything else."""
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT:
            raise UsageError(f"format {values['format']!r} is not {FORMAT!r}", where=path)
        if values["version"] != FORMAT_VERSION:
            raise UsageError(
                f"gate file version {values['version']!r} is not {FORMAT_VERSION}",
                where=path,
                hint="export the run again with this version of g4eval",
            )
        return Arm(
            run_id=values["run_id"],
            seed=values["seed"],
            facts=values["facts"],
            declared=tuple(values["declared"]),
            tasks={task_id: _task_from_json(task) for task_id, task in values["tasks"].items()},
            config=values["config"],
            calibration=None
            if values["calibration"] is None
            else Calibration.checked(values["calibration"], where=path),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"is not a gate file: {type(error).__name__}: {error}",
            where=path,
            hint="make one with: g4eval export RUN --to gate",
        ) from error


def _to_json(arm: Arm) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run_id": arm.run_id,
        "seed": arm.seed,
        "facts": dict(arm.facts),
        "declared": list(arm.declared),
        "config": {k: v for k, v in arm.config.items() if k not in OF_A_MACHINE},
        "calibration": None if arm.calibration is None else arm.calibration.as_json(),
        "tasks": {task_id: _task_to_json(task) for task_id, task in arm.tasks.items()},
    }


def _task_to_json(task: ArmTask) -> dict[str, Any]:
    letters = np.array(list(LETTERS))[task.outcomes]
    return {
        "protocol": dict(task.protocol),
        "sample_ids": list(task.sample_ids),
        "groups": list(task.groups),
        "outcomes": ["".join(row) for row in letters.tolist()],
        "truncated": _bits(task.truncated),
        "open_thoughts": _bits(task.open_thoughts),
        "looping": _bits(task.looping),
        "other_script": _bits(task.other_script),
        "tokens": [
            [None if math.isnan(t) else int(t) for t in row] for row in task.tokens.tolist()
        ],
        "prompt_hashes": [_squeeze(row) for row in task.prompt_hashes.tolist()],
    }


def _task_from_json(values: Mapping[str, Any]) -> ArmTask:
    outcomes = np.array(
        [[LETTERS.index(letter) for letter in row] for row in values["outcomes"]], np.int8
    )
    n, k = outcomes.shape if outcomes.size else (len(values["sample_ids"]), 0)
    outcomes = outcomes.reshape(n, k)
    tokens = [[np.nan if t is None else float(t) for t in row] for row in values["tokens"]]
    hashes = [[h] * k if isinstance(h, str) else h for h in values["prompt_hashes"]]
    return ArmTask(
        protocol=values["protocol"],
        sample_ids=tuple(values["sample_ids"]),
        groups=tuple(values["groups"]),
        outcomes=outcomes,
        truncated=_from_bits(values["truncated"], k),
        open_thoughts=_from_bits(values["open_thoughts"], k),
        looping=_from_bits(values["looping"], k),
        other_script=_from_bits(values["other_script"], k),
        tokens=np.array(tokens, np.float64).reshape(n, k),
        prompt_hashes=np.array(hashes, "U64").reshape(n, k),
    )


def _bits(flags: NDArray[np.bool_]) -> list[str]:
    return ["".join("01"[flag] for flag in row) for row in flags.tolist()]


def _from_bits(rows: Sequence[str], k: int) -> NDArray[np.bool_]:
    return np.array([[bit == "1" for bit in row] for row in rows], np.bool_).reshape(len(rows), k)


def _squeeze(row: list[str]) -> str | list[str]:
    """Return one hash where all repeats have the same prompt."""
    return row[0] if row and len(set(row)) == 1 else row


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
