"""Deciding once: verdict.json in the candidate's run folder.

Retrying until green multiplies alpha, so one pair of runs gets one decision under one policy. The
same question again returns the stored verdict; more data after INCONCLUSIVE continues the same
decision; anything else is refused. INVALID is no look at the accuracies, so it isn't stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from g4eval.errors import StoreError, UsageError
from g4eval.gate.arm import Arm
from g4eval.gate.policy import GatePolicy
from g4eval.gate.record import data_digest, verdict_record
from g4eval.gate.schedule import Round, next_round
from g4eval.gate.verdict import EXIT_CODES, GateVerdict, Judgement, complete_rounds, judge
from g4eval.stats.drift import DriftSummary
from g4eval.store.manifest import write_json
from g4eval.store.verdicts import EDITED_HINT, VerdictRecord

VERDICT = "verdict.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The record of a decision, new or found."""

    record: VerdictRecord
    judgement: Judgement | None  # None: found
    path: Path | None  # where it is stored; None: nowhere

    @property
    def was_stored(self) -> bool:
        """Whether the verdict was there already."""
        return self.judgement is None


def decide_once(
    base: Arm,
    candidate: Arm,
    policy: GatePolicy,
    *,
    now: datetime,
    drift: DriftSummary | None = None,
    rounds: Sequence[Round] | None = None,
    is_final: bool = True,
) -> Decided:
    """Return the pair's verdict: the stored one, its continuation, or a new one, then stored.

    Args:
        base: the baseline.
        candidate: the candidate; without a folder, nothing is stored.
        policy: the rules.
        now: the time of the decision.
        drift: teacher-forced drift between the two.
        rounds: the plan of a driven run.
        is_final: whether to store INCONCLUSIVE; a driven run asks after every round.

    Raises UsageError where the pair was decided otherwise, NotReadyError with nothing to decide on.
    """
    _refuse_itself(base, candidate)
    path = None if candidate.folder is None else _path(candidate.folder, base)
    stored = _read(path)
    if stored is not None:
        assert path is not None
        _refuse_other_terms(stored, base, candidate, policy, path)
        rounds = _continuation(stored, base, candidate)
        if rounds is None:
            return Decided(record=stored, judgement=None, path=path)
    floor = drift_floor(base)
    found = judge(base, candidate, policy, drift=drift, drift_floor=floor, rounds=rounds)
    first = None if stored is None else stored.first_look_at
    record = verdict_record(found, base, candidate, policy, now=now, continues=first)
    is_decision = found.verdict is not GateVerdict.INVALID and (
        is_final or found.verdict is not GateVerdict.INCONCLUSIVE
    )
    if path is not None and is_decision:
        write_json(path, record.as_json())
    return Decided(record=record, judgement=found, path=path if is_decision else None)


def _refuse_itself(base: Arm, candidate: Arm) -> None:
    """A run agrees with itself in everything, and would pass any margin."""
    same = all(
        getattr(base, name) == getattr(candidate, name)
        for name in ("run_id", "seed", "fingerprint")
    )
    if same:
        raise UsageError(
            f"{base.run_id!r} is the baseline and the candidate",
            where=candidate.folder,
            hint="to see that equal engines pass: g4eval gate-calibrate " + base.run_id,
        )


def drift_floor(base: Arm) -> float | None:
    """Return the calibrated upper limit of the mean KL between equal engines; None: unknown."""
    return None if base.calibration is None else base.calibration.drift_floor_kl


def stored_rounds(base: Arm, candidate_folder: Path) -> tuple[Round, ...] | None:
    """Return the plan of a decision that is under way; None: there is none."""
    stored = _read(_path(candidate_folder, base))
    return None if stored is None or stored.rounds is None else _rounds(stored)


def _path(folder: Path, base: Arm) -> Path:
    """Return the file of this pair: verdict.json, unless another baseline's decision is there."""
    path = folder / VERDICT
    stored = _read(path)
    if stored is None or stored.baseline.run_id == base.run_id:
        return path
    return folder / f"verdict-{base.run_id}.json"


def _read(path: Path | None) -> VerdictRecord | None:
    """Return a stored verdict, checked: its hash, and that the exit code is the verdict's."""
    if path is None or not path.exists():
        return None
    record = VerdictRecord.read(path)
    if record.exit_code not in _codes_of(record):
        raise StoreError(
            f"verdict {record.verdict!r} with exit code {record.exit_code} is none that is decided",
            where=path,
            hint=EDITED_HINT,
        )
    return record


def _codes_of(record: VerdictRecord) -> set[int]:
    """Return the exit codes that a verdict may have: INCONCLUSIVE may be told to fail."""
    verdict = GateVerdict(record.verdict)
    codes = {EXIT_CODES[verdict]}
    return codes | {1} if verdict is GateVerdict.INCONCLUSIVE else codes


def _refuse_other_terms(
    stored: VerdictRecord, base: Arm, candidate: Arm, policy: GatePolicy, path: Path
) -> None:
    if stored.policy_fingerprint != policy.fingerprint:
        asked, decided = policy.model_dump(mode="json"), stored.policy.as_json()
        differences = [
            f"{key}: {decided.get(key)!r} in the decision, {asked.get(key)!r} asked for"
            for key in sorted({*decided, *asked})
            if decided.get(key) != asked.get(key)
        ]
        raise UsageError(
            f"this pair was decided under another policy on {stored.decided_at}:\n    "
            + "\n    ".join(differences),
            where=path,
            hint="a new decision needs a new candidate run: another --seed",
        )
    if stored.rounds is None:  # failed by drift, before any look
        return
    used = _rounds(stored)[: stored.rounds_used]
    is_there = complete_rounds(used, base, candidate) == len(used)
    if not is_there or data_digest(base, candidate, used) != stored.data:
        raise UsageError(
            f"the outcomes that the decision of {stored.decided_at} rests on have changed",
            where=path,
            hint="graded again? a new decision needs a new candidate run: another --seed",
        )


def _continuation(stored: VerdictRecord, base: Arm, candidate: Arm) -> tuple[Round, ...] | None:
    """Return the plan to go on with; None: the decision stands."""
    if not stored.can_continue:
        return None
    rounds = list(_rounds(stored))
    if stored.design == "anytime":
        rounds = extend(rounds, base, candidate)
    is_more = complete_rounds(rounds, base, candidate) > stored.rounds_used
    return tuple(rounds) if is_more else None


def extend(rounds: Sequence[Round], base: Arm, candidate: Arm) -> list[Round]:
    """Add rounds of the last one's shares for as long as both arms have them."""
    longer = list(rounds)
    while True:
        longer.append(next_round(longer[-1]))
        if complete_rounds(longer, base, candidate) < len(longer):
            return longer[:-1]


def _rounds(stored: VerdictRecord) -> tuple[Round, ...]:
    return tuple(Round(repeats=dict(r)) for r in stored.rounds or ())
