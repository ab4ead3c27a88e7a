"""An arm as one JSON file (`g4eval export RUN --to gate`), which a CI cache can keep.

Version 2 has hashes of texts, which tell copies from tries; a file without them is read, and
whether repeats are copies is then unknown.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import StoreError, UsageError
from g4eval.gating.arm import LETTERS, Arm, ArmTask
from g4eval.output import replacing, safe_json
from g4eval.store.gate_file import GateFile, GateFileTask, seal_of
from g4eval.store.stored import read_json_object
from g4eval.store.verdicts import Calibration

FORMAT = "g4eval-gate"
FORMAT_VERSION = 2

OF_A_MACHINE = ("data_dir", "tasks_dir", "runs_dir")  # keys of a config that gate files leave out


def write_gate_file(arm: Arm, path: Path | None) -> None:
    """Write an arm as one JSON file; None: on stdout."""
    values = _to_json(arm)
    text = json.dumps({**values, "sha256": seal_of(values)}, ensure_ascii=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    with replacing(path) as draft:
        draft.write_text(safe_json(text), encoding="utf-8")


def read_gate_file(path: Path) -> Arm:
    """Return the arm in a gate file; raises UsageError for anything else."""
    hint = "make one with: g4eval export RUN --to gate"
    try:
        values = read_json_object(path)
        if "format" not in values:
            raise UsageError("is not a gate file", where=path, hint=hint)
        if values["format"] != FORMAT:
            raise UsageError(f"format {values['format']!r} is not {FORMAT!r}", where=path)
        if values.get("version") not in range(1, FORMAT_VERSION + 1):
            raise UsageError(
                f"gate file version {values.get('version')!r} is not one of 1 to {FORMAT_VERSION}",
                where=path,
                hint="export the run again with this version of g4eval",
            )
        stored = GateFile.checked(values, where=path)
    except StoreError as error:
        raise UsageError(f"is not a gate file: {error.what}", where=path, hint=hint) from error
    return Arm(
        run_id=stored.run_id,
        seed=stored.seed,
        facts=stored.facts,
        declared=stored.declared,
        tasks={task_id: _task_from_json(task) for task_id, task in stored.tasks.items()},
        config=stored.config,
        calibration=None
        if stored.calibration is None
        else Calibration.checked(stored.calibration, where=path),
    )


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
        "text_hashes": [[f"{t:016x}" if t else "" for t in row] for row in task.texts.tolist()],
        "long_texts": _bits(task.long_texts),
        "questions": list(task.questions),
    }


def _task_from_json(stored: GateFileTask) -> ArmTask:
    n, k = len(stored.sample_ids), stored.n_repeats
    letters = [[LETTERS.index(letter) for letter in row] for row in stored.outcomes]
    tokens = [[np.nan if t is None else t for t in row] for row in stored.tokens]
    hashes = [[h] * k if isinstance(h, str) else h for h in stored.prompt_hashes]
    texts = [[int(t, 16) if t else 0 for t in row] for row in stored.text_hashes]
    no_flags = ("0" * k,) * n
    return ArmTask(
        protocol=stored.protocol,
        sample_ids=stored.sample_ids,
        groups=stored.groups,
        outcomes=np.array(letters, np.int8).reshape(n, k),
        truncated=_from_bits(stored.truncated, k),
        open_thoughts=_from_bits(stored.open_thoughts, k),
        looping=_from_bits(stored.looping or no_flags, k),
        other_script=_from_bits(stored.other_script or no_flags, k),
        tokens=np.array(tokens, np.float64).reshape(n, k),
        prompt_hashes=np.array(hashes, "U64").reshape(n, k),
        texts=np.array(texts, np.uint64).reshape(n, k) if texts else np.zeros((n, k), np.uint64),
        long_texts=_from_bits(stored.long_texts or no_flags, k),
        questions=stored.questions,
    )


def _bits(flags: NDArray[np.bool_]) -> list[str]:
    return ["".join("01"[flag] for flag in row) for row in flags.tolist()]


def _from_bits(rows: Sequence[str], k: int) -> NDArray[np.bool_]:
    return np.array([[bit == "1" for bit in row] for row in rows], np.bool_).reshape(len(rows), k)


def _squeeze(row: list[str]) -> str | list[str]:
    """Return one hash where all repeats have the same prompt."""
    return row[0] if row and len(set(row)) == 1 else row
