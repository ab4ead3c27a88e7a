"""Arms for tests of the gate, written as one string of letters a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from g4eval.gating.arm import LETTERS, Arm, ArmTask

FACTS = {
    "engine": "vllm",
    "engine_version": "0.12",
    "model": "gemma",
    "weights_fingerprint": "aa",
    "dtype": "bfloat16",
    "quantization": "none",
    "kv_cache_dtype": "auto",
    "attention_backend": "flash",
    "parallelism": "tp1",
    "speculative_decoding": "none",
    "chat_template_hash": "cc",
    "thinking": "on",
    "reasoning_parser": "none",
    "server_address": "none",
    "context_tokens": 32768,
    "other": {"prefix_caching": True},
}
PROTOCOL: dict[str, Any] = {
    "version": 1,
    "prompt": "default",
    "grader": ["integer 1"],
    "sampling.max_new_tokens": 512,
}


def arm_task(rows: Sequence[str], **changes: Any) -> ArmTask:
    """`["CCIN", ...]`: C right, I wrong, N no answer, U ungraded, . absent."""
    outcomes = np.array([[LETTERS.index(letter) for letter in row] for row in rows], np.int8)
    values: dict[str, Any] = {
        "protocol": PROTOCOL,
        "sample_ids": tuple(f"s{i:04}" for i in range(len(rows))),
        "groups": ("",) * len(rows),
        "outcomes": outcomes,
        "truncated": np.zeros(outcomes.shape, np.bool_),
        "open_thoughts": np.zeros(outcomes.shape, np.bool_),
        "looping": np.zeros(outcomes.shape, np.bool_),
        "other_script": np.zeros(outcomes.shape, np.bool_),
        "tokens": np.full(outcomes.shape, 100.0),
        "prompt_hashes": np.where(outcomes == 4, "", "hash").astype("U64"),
    }
    return ArmTask(**{**values, **changes})


def arm(
    tasks: Mapping[str, Any], *, seed: int | None = 0, run_id: str = "base", **facts: Any
) -> Arm:
    """Tasks are rows or ArmTasks; further keywords replace facts of the engine."""
    return Arm(
        run_id=run_id,
        seed=seed,
        facts={**FACTS, **facts},
        declared=(),
        tasks={t: v if isinstance(v, ArmTask) else arm_task(v) for t, v in tasks.items()},
        config={"tasks": sorted(tasks), "engine": "vllm"},
    )


def drawn(accuracy: float, *, n: int = 300, k: int = 4, seed: int = 0) -> list[str]:
    """Rows of right and wrong tries, drawn independently."""
    right = np.random.default_rng(seed).random((n, k)) < accuracy
    return ["".join("IC"[int(c)] for c in row) for row in right]


def pair(base: float, candidate: float, **facts: Any) -> tuple[Arm, Arm]:
    """Two arms of one task with drawn outcomes."""
    return (
        arm({"demo": drawn(base, seed=1)}),
        arm({"demo": drawn(candidate, seed=2)}, seed=1, run_id="candidate", **facts),
    )
