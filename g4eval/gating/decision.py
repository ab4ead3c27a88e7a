"""Deciding once: verdict.json in the candidate's run folder.

Retrying until green multiplies alpha, so one pair of runs gets one decision under one policy. The
same question again returns the stored verdict; more data after INCONCLUSIVE continues the same
decision; anything else is refused. INVALID is no look at the accuracies, so it isn't stored.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from g4eval.errors import StoreError, UsageError
from g4eval.fingerprint import sha256_json
from g4eval.gating.arm import Arm, worst_case
from g4eval.gating.pairing import DecisionPlan, Pairing, data_digest, extended
from g4eval.gating.policy import GatePolicy
from g4eval.gating.record import verdict_record
from g4eval.gating.schedule import Round
from g4eval.gating.verdict import EXIT_CODES, GateVerdict, Judgement, judge
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
    plan: DecisionPlan | None = None,
    is_final: bool = True,
) -> Decided:
    """Return the pair's verdict: the stored one, its continuation, or a new one, then stored.

    Args:
        base: the baseline.
        candidate: the candidate; without a folder, nothing is stored.
        policy: the rules.
        now: the time of the decision.
        drift: teacher-forced drift between the two.
        plan: of a driven run.
        is_final: whether to store INCONCLUSIVE; a driven run asks after every round.

    Raises UsageError where the pair was decided otherwise, NotReadyError with nothing to decide on.
    """
    _refuse_itself(base, candidate)
    path = None if candidate.folder is None else _path(candidate.folder, base)
    stored = _read(path)
    n_looked_at = 0
    if stored is not None:
        assert path is not None
        policy = _terms(stored, policy, path)
        pairing = _stored_pairing(stored, base, candidate, policy)
        _refuse_other_data(stored, pairing, path)
        going_on = _continuation(stored, pairing)
        if going_on is None:
            return Decided(record=stored, judgement=None, path=path)
        plan, n_looked_at = going_on, stored.rounds_used
    found = judge(
        base,
        candidate,
        policy,
        drift=drift,
        drift_floor=drift_floor(base),
        plan=plan,
        n_looked_at=n_looked_at,
    )
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


def is_decided(base: Arm, candidate: Arm) -> bool:
    """Whether the pair has a stored decision, to be told or continued."""
    return candidate.folder is not None and _read(_path(candidate.folder, base)) is not None


def stored_plan(base: Arm, candidate_folder: Path) -> DecisionPlan | None:
    """Return the plan of a decision that is under way; None: there is none."""
    stored = _read(_path(candidate_folder, base))
    return None if stored is None or stored.rounds is None else _plan(stored)


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


def _terms(stored: VerdictRecord, policy: GatePolicy, path: Path) -> GatePolicy:
    """Return the rules of the stored decision; refuses to go on under others."""
    values = stored.policy.as_json()
    if sha256_json(values) != stored.policy_fingerprint:
        raise StoreError("the policy isn't the one of its hash", where=path, hint=EDITED_HINT)
    decided = GatePolicy.of_decision(values)
    differences = policy.differences(decided, stored.policy_defaults)
    if differences:
        raise UsageError(
            f"this pair was decided under another policy on {stored.decided_at}:\n    "
            + "\n    ".join(differences),
            where=path,
            hint="a new decision needs a new candidate run: another --seed",
        )
    return decided


def _stored_pairing(
    stored: VerdictRecord, base: Arm, candidate: Arm, policy: GatePolicy
) -> Pairing | None:
    """Return the pair under the stored plan; None: it failed by drift, before any look."""
    if stored.rounds is None:
        return None
    base, candidate = worst_case(base, candidate)
    return Pairing(base=base, candidate=candidate, plan=_plan(stored), policy=policy)


def _refuse_other_data(stored: VerdictRecord, pairing: Pairing | None, path: Path) -> None:
    if pairing is None:
        return
    is_there = pairing.n_complete >= stored.rounds_used
    if not is_there or data_digest(pairing, stored.rounds_used) != stored.data:
        raise UsageError(
            f"the outcomes that the decision of {stored.decided_at} rests on have changed",
            where=path,
            hint="graded again? a new decision needs a new candidate run: another --seed",
        )


def _continuation(stored: VerdictRecord, pairing: Pairing | None) -> DecisionPlan | None:
    """Return the plan to go on with; None: the decision stands."""
    if pairing is None or not stored.can_continue:
        return None
    if stored.design == "anytime":
        pairing = extended(pairing)
    return pairing.plan if pairing.n_complete > stored.rounds_used else None


def _plan(stored: VerdictRecord) -> DecisionPlan:
    return DecisionPlan(
        rounds=tuple(Round(repeats=dict(r)) for r in stored.rounds or ()),
        allocation=stored.allocation or {},
        base_repeats=stored.base_repeats or {},
    )
