"""Invented decisions of the gate, as a run folder holds them."""

from g4eval.gating.policy import GatePolicy
from g4eval.store.verdicts import VerdictRecord


def verdict_record(verdict: str, baseline: str, **more: object) -> VerdictRecord:
    """A sealed record that says so of a pair with this baseline."""
    return VerdictRecord.sealed(
        {
            "verdict": verdict,
            "exit_code": 0,
            "decided_at": "2026-01-02T03:04:00+00:00",
            "first_look_at": "2026-01-02T03:04:00+00:00",
            "baseline": {"run_id": baseline},
            "candidate": {"run_id": "cand"},
            "policy": GatePolicy().model_dump(mode="json"),
            "policy_fingerprint": GatePolicy().fingerprint,
            **more,
        }
    )
