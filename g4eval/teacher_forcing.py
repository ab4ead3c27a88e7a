"""Score a baseline's recorded tokens on engines, one model in memory at a time, and compare.

Scores are kept in BASE/scores/<engine fingerprint>.npz, so each engine scores a set of traces once.
Called by `g4eval drift`, `gate` and `gate-calibrate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from g4eval.config import RunConfig
from g4eval.engines.base import Engine, ScoringEngine
from g4eval.errors import NotComparableError, StoreError, UsageError
from g4eval.fingerprint import hash_order, sha256_json
from g4eval.planning import find_profile
from g4eval.records import Outcome, TokenScores
from g4eval.session import make_engine
from g4eval.stats.drift import (
    DriftSummary,
    OffPolicy,
    SequenceDrift,
    compare_scores,
    off_policy_difference,
    summarise_drift,
)
from g4eval.store.reader import RunReader

SCORES = "scores"
TRACES_A_NOTE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChoice:
    """Which recorded tokens are scored; equal choices give equal traces."""

    per_task: int = 16  # first repeats of so many samples of each task, in hash order
    max_tokens: int = 4096  # a longer trace is cut there, prompt included
    top_k: int = 32  # 0: only the tokens themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One recorded sequence."""

    key: str
    task_id: str
    token_ids: tuple[int, ...]  # prompt and completion
    prompt_tokens: int
    is_whole: bool  # not cut
    outcome: Outcome


def choose_traces(folder: Path, choice: TraceChoice) -> list[Trace]:
    """Return the traces of a run; raises NotComparableError where it recorded no token ids.

    Gated tasks are left out: their prompts' token ids, which decode to the questions, are not
    stored, and those that an older version stored are not read.
    """
    traces: list[Trace] = []
    with RunReader(folder) as run:
        plans = run.tasks()
        gated = [task_id for task_id, plan in plans.items() if plan.gated]
        for task_id in (t for t in plans if t not in gated):
            rows = {row.key: row for row in run.rows(task_id) if row.repeat == 0}
            order = sorted(rows, key=lambda key: hash_order("drift", rows[key].sample_id))
            for key in order[: choice.per_task]:
                trace = _trace(run, key, rows[key].outcome, choice.max_tokens)
                if trace is not None:
                    traces.append(trace)
    if not traces and gated:
        raise NotComparableError(
            f"prompts of gated tasks are not stored, so there is nothing to score: {gated}",
            where=folder,
            hint="give the baseline a task that is not gated too, recorded by vllm or gemma",
        )
    if not traces:
        raise NotComparableError(
            "the baseline recorded no token ids, so there is nothing to score",
            where=folder,
            hint="engines vllm and gemma record them; an HTTP server may not tell them",
        )
    return traces


def _trace(run: RunReader, key: str, outcome: Outcome, max_tokens: int) -> Trace | None:
    completion = run.completion(key)
    if completion is None or not completion.prompt_token_ids or not completion.token_ids:
        return None
    whole = (*completion.prompt_token_ids, *completion.token_ids)
    cut = whole[:max_tokens]
    if len(cut) <= len(completion.prompt_token_ids):
        return None
    return Trace(
        key=key,
        task_id=completion.task_id,
        token_ids=cut,
        prompt_tokens=len(completion.prompt_token_ids),
        is_whole=len(cut) == len(whole),
        outcome=outcome,
    )


async def score_traces(
    engine: Engine,
    traces: Sequence[Trace],
    top_k: int,
    note: Callable[[str], None] = lambda _: None,
) -> list[TokenScores]:
    """Score every trace on an entered engine; raises UsageError where it can't score."""
    if not isinstance(engine, ScoringEngine):
        name = engine.describe().engine
        raise UsageError(
            f"engine {name!r} can't score given tokens", hint="vllm and gemma can; drift needs it"
        )
    scores = []
    for number, trace in enumerate(traces, 1):
        scores.append(await engine.score(trace.token_ids, top_k))
        if number % TRACES_A_NOTE == 0 or number == len(traces):
            note(f"scored {number}/{len(traces)}")
    return scores


def scores_path(folder: Path, fingerprint: str, *, again: bool = False) -> Path:
    """Return where a baseline keeps the scores that one engine gave its traces."""
    return folder / SCORES / f"{fingerprint[:16]}{'-again' if again else ''}.npz"


def save_scores(
    path: Path, traces: Sequence[Trace], scores: Sequence[TokenScores], choice: TraceChoice
) -> None:
    """Write scores, whole or not at all."""
    arrays = {
        "identity": np.array(_identity(traces, choice)),
        "lengths": np.array([len(s.logprobs) for s in scores], np.int64),
        "logprobs": np.concatenate([np.asarray(s.logprobs, np.float32) for s in scores]),
    }
    if choice.top_k:
        arrays["top_ids"] = np.concatenate([np.asarray(s.top_ids, np.int32) for s in scores])
        arrays["top_logprobs"] = np.concatenate(
            [np.asarray(s.top_logprobs, np.float32) for s in scores]
        )
    try:
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(".part.npz")
        np.savez_compressed(draft, allow_pickle=False, **arrays)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"scores can't be written: {error.strerror}", where=path) from error


def load_scores(
    path: Path, traces: Sequence[Trace], choice: TraceChoice
) -> list[TokenScores] | None:
    """Return stored scores; None: there are none of these very traces."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["identity"]) != _identity(traces, choice):
            return None
        edges = np.cumsum(arrays["lengths"])[:-1]
        parts: list[list[Any]] = [
            np.split(arrays[name], edges)
            for name in ("logprobs", "top_ids", "top_logprobs")
            if name in arrays
        ]
    if len(parts) == 1:
        return [TokenScores(logprobs=row) for row in parts[0]]
    return [
        TokenScores(logprobs=row, top_ids=ids, top_logprobs=tops)
        for row, ids, tops in zip(*parts, strict=True)
    ]


def _identity(traces: Sequence[Trace], choice: TraceChoice) -> str:
    return sha256_json([choice.top_k, [[t.key, len(t.token_ids)] for t in traces]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What teacher forcing says of two engines on one run's traces."""

    sequences: tuple[SequenceDrift, ...]
    summary: DriftSummary
    off_policy: OffPolicy | None  # None: no trace is whole and graded


def compare_traces(
    traces: Sequence[Trace], base: Sequence[TokenScores], candidate: Sequence[TokenScores]
) -> Drift:
    """Compare two scorings of the same traces."""
    sequences = [
        compare_scores(t.task_id, t.token_ids, left, right, prompt_tokens=t.prompt_tokens)
        for t, left, right in zip(traces, base, candidate, strict=True)
    ]
    judged = [
        (s.log_weight, float(t.outcome is Outcome.CORRECT))
        for s, t in zip(sequences, traces, strict=True)
        if t.is_whole and t.outcome is not Outcome.UNGRADED
    ]
    off_policy = None
    if len(judged) > 1:
        weights, scores = np.array(judged).T
        off_policy = off_policy_difference(weights, scores)
    return Drift(
        sequences=tuple(sequences), summary=summarise_drift(sequences), off_policy=off_policy
    )


def stored_drift(
    folder: Path, base_fingerprint: str, fingerprint: str, choice: TraceChoice
) -> Drift | None:
    """Return the drift between two engines that both have scored; None: one hasn't."""
    if not (folder / SCORES).is_dir():
        return None
    traces = choose_traces(folder, choice)
    found = [
        load_scores(scores_path(folder, f), traces, choice) for f in (base_fingerprint, fingerprint)
    ]
    if found[0] is None or found[1] is None:
        return None
    return compare_traces(traces, found[0], found[1])


async def score_run(
    folder: Path,
    config: RunConfig,
    fingerprint: str,
    choice: TraceChoice,
    *,
    again: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> list[TokenScores]:
    """Return the scores that a run's engine gives a baseline's traces, made or stored.

    Args:
        folder: the baseline's.
        config: of the run whose engine scores.
        fingerprint: of that engine, as its run recorded it.
        choice: which traces.
        again: score although there are scores, into a file of its own: a noise floor.
        note: hears of progress.

    Raises NotComparableError where the engine is no longer what the run recorded.
    """
    traces = choose_traces(folder, choice)
    path = scores_path(folder, fingerprint, again=again)
    stored = load_scores(path, traces, choice)
    if stored is not None:
        return stored
    engine = make_engine(config, find_profile(config), note=note)
    async with engine:
        now = engine.describe().fingerprint
        if now != fingerprint:
            raise NotComparableError(
                f"the engine's fingerprint is {now[:12]}, the run recorded {fingerprint[:12]}",
                where=folder,
                hint="score on the machine and with the versions that made the run",
            )
        scores = await score_traces(engine, traces, choice.top_k, note)
    save_scores(path, traces, scores, choice)
    kept = load_scores(path, traces, choice)  # in the precision that the next comparison will see
    assert kept is not None
    return kept


def drift_json(drift: Drift) -> dict[str, object]:
    """Return what `g4eval drift --json` prints."""
    values: dict[str, object] = dict(drift.summary.as_json())
    off = drift.off_policy
    values["off_policy"] = off and {
        "is_applicable": off.is_applicable,
        "delta_pt": 100 * off.delta,
        "first_order_pt": 100 * off.first_order,
        "se_pt": 100 * off.se,
        "ess_share": off.ess_share,
        "log_weight_variance": off.log_weight_variance,
    }
    return values
