"""An arm as one JSON file (`g4eval export RUN --to gate`), which a CI cache can keep.

Version 2 has hashes of texts, which tell copies from tries; a file without them is read, and
whether repeats are copies is then unknown.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import UsageError
from g4eval.gate.arm import LETTERS, Arm, ArmTask
from g4eval.output import replacing, safe_json
from g4eval.store.verdicts import Calibration

FORMAT = "g4eval-gate"
FORMAT_VERSION = 2

OF_A_MACHINE = ("data_dir", "tasks_dir", "runs_dir")  # keys of a config that gate files leave out


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
        if values["version"] not in range(1, FORMAT_VERSION + 1):
            raise UsageError(
                f"gate file version {values['version']!r} is not one of 1 to {FORMAT_VERSION}",
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
        "text_hashes": [[f"{t:016x}" if t else "" for t in row] for row in task.texts.tolist()],
        "long_texts": _bits(task.long_texts),
        "questions": list(task.questions),
    }


def _task_from_json(values: Mapping[str, Any]) -> ArmTask:
    outcomes = np.array(
        [[LETTERS.index(letter) for letter in row] for row in values["outcomes"]], np.int8
    )
    n, k = outcomes.shape if outcomes.size else (len(values["sample_ids"]), 0)
    outcomes = outcomes.reshape(n, k)
    tokens = [[np.nan if t is None else float(t) for t in row] for row in values["tokens"]]
    hashes = [[h] * k if isinstance(h, str) else h for h in values["prompt_hashes"]]
    texts = [[int(t, 16) if t else 0 for t in row] for row in values.get("text_hashes", ())]
    no_flags = ["0" * k] * n
    return ArmTask(
        protocol=values["protocol"],
        sample_ids=tuple(values["sample_ids"]),
        groups=tuple(values["groups"]),
        outcomes=outcomes,
        truncated=_from_bits(values["truncated"], k),
        open_thoughts=_from_bits(values["open_thoughts"], k),
        looping=_from_bits(values.get("looping", no_flags), k),
        other_script=_from_bits(values.get("other_script", no_flags), k),
        tokens=np.array(tokens, np.float64).reshape(n, k),
        prompt_hashes=np.array(hashes, "U64").reshape(n, k),
        texts=np.array(texts, np.uint64).reshape(n, k) if texts else np.zeros((n, k), np.uint64),
        long_texts=_from_bits(values.get("long_texts", no_flags), k),
        questions=tuple(values.get("questions", ())),
    )


def _bits(flags: NDArray[np.bool_]) -> list[str]:
    return ["".join("01"[flag] for flag in row) for row in flags.tolist()]


def _from_bits(rows: Sequence[str], k: int) -> NDArray[np.bool_]:
    return np.array([[bit == "1" for bit in row] for row in rows], np.bool_).reshape(len(rows), k)


def _squeeze(row: list[str]) -> str | list[str]:
    """Return one hash where all repeats have the same prompt."""
    return row[0] if row and len(set(row)) == 1 else row
