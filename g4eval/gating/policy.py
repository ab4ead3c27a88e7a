"""The gate's policy: what `gate.yaml` may say, its defaults, and its identity.

Margins are written down before the run: the report prints them first, and the policy's fingerprint
is part of the decision. docs/gate.md explains every key.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from g4eval.config import parse_model, read_yaml
from g4eval.fingerprint import sha256_json

PLANS: dict[str, tuple[int, int, int, int]] = {
    # repeats: AIME, GPQA Diamond and LiveCodeBench, BBEH mini, BBEH
    "smoke": (4, 2, 1, 1),
    "pr": (8, 4, 2, 1),
    "nightly": (16, 8, 4, 1),
    "release": (32, 16, 8, 1),
}


# What was done before a key was there.
BEFORE: dict[str, Any] = {
    "spending": "obf",
    "baseline_repeats": "paired",
    "allocation": "equal",
    "max_copied_pct": 5.0,
}


class DriftPolicy(BaseModel):
    """Levels of teacher-forced drift, which have to be measured on this machine's own ladder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catastrophic_kl: float = Field(default=0.5, gt=0)  # nats a token: FAIL above
    catastrophic_top1_loss: float = Field(default=0.25, gt=0, le=1)  # 1 - agreement: FAIL above
    escalate_ratio: float = Field(default=3.0, gt=1)  # times the A/A floor: twice the plan above


class ShapePolicy(BaseModel):
    """When the form of the answers alone is a FAIL or a warning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    increase_pt: float = Field(
        default=1.0, ge=0
    )  # of truncated, looping, ...: FAIL if surely above
    alpha: float = Field(default=0.01, gt=0, lt=0.5)  # of each such FAIL
    length_warn: float = Field(default=0.05, gt=0)  # relative change of the mean length
    length_fail: float = Field(default=0.10, gt=0)  # FAIL where the whole 95 % interval is beyond


class GatePolicy(BaseModel):
    """One gate decision's rules; points (`_pt`) are percentage points of accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin_pt: float = Field(default=1.5, gt=0, le=50)  # PASS: the true loss is surely smaller
    ok_pt: float = Field(default=0.0, le=0)  # FAIL: the true difference is surely below this
    alpha_pass: float = Field(default=0.05, gt=0, lt=0.5)
    alpha_fail: float = Field(default=0.05, gt=0, lt=0.5)
    design: Literal["gst", "anytime", "fixed"] = "gst"
    looks: int = Field(default=8, ge=1, le=50)  # gst; fewer where a task has few pairs
    spending: Literal["hsd", "obf"] = "hsd"  # gst: how alpha is shared out over the looks
    plan: Literal["stored", "smoke", "pr", "nightly", "release"] = "stored"
    repeats: Mapping[str, int] = Field(default_factory=dict)  # task id to repeats; before `plan`
    # All repeats that the baseline has; or only as many as the candidate, pair by pair.
    baseline_repeats: Literal["all", "paired"] = "all"
    # Of a driven candidate: where the baseline's own repeats vary; or equal over samples.
    allocation: Literal["neyman", "equal"] = "neyman"
    primary: str = "macro"  # the equal-weight mean over tasks, or one task id
    tasks: tuple[str, ...] | None = None  # None: both runs must have the same tasks
    guardrail_margin_pt: float = Field(default=4.0, gt=0)  # printed and planned with; no verdict
    guardrail_alpha: float = Field(default=0.01, ge=0, lt=0.5)  # 0: no guardrails
    estimand: Literal["fixed", "super"] = "fixed"
    equivalence: bool = False  # a gain is as suspicious as a loss
    on_inconclusive: Literal["exit", "extend", "fail"] = "exit"
    max_pairs: int | None = Field(default=None, ge=1)  # extend: never generate past it
    swap: tuple[str, ...] | None = None  # groups or fields that may differ; None: one group
    decision_seed: int = Field(default=0, ge=0)  # orders the samples inside a round
    max_ungraded_pct: float = Field(default=0.5, ge=0, le=100)  # a share above it decides nothing
    max_copied_pct: float = Field(default=5.0, ge=0, le=100)  # of long repeats: INVALID above
    drift: DriftPolicy = DriftPolicy()
    shape: ShapePolicy = ShapePolicy()

    _later: frozenset[str] = PrivateAttr(default=frozenset())  # keys younger than the decision

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if -self.ok_pt >= self.margin_pt:
            raise ValueError(f"ok_pt {self.ok_pt} must lie above -margin_pt {-self.margin_pt}")
        if self.on_inconclusive == "extend" and self.design != "anytime":
            raise ValueError(
                f"on_inconclusive: extend needs design: anytime, not {self.design}, "
                "which has spent its alpha at the last look"
            )
        if any(count < 1 for count in self.repeats.values()):
            raise ValueError(f"repeats {dict(self.repeats)} must be 1 or more")
        return self

    @property
    def margin(self) -> float:
        """The margin as a fraction."""
        return self.margin_pt / 100

    @property
    def ok(self) -> float:
        """The tolerated difference as a fraction, 0 or below."""
        return self.ok_pt / 100

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over every key that the decision knows."""
        return sha256_json(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the keys as a decision stores them: without those that were made after it."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in self._later}

    @property
    def defaults(self) -> tuple[str, ...]:
        """The keys that nobody set."""
        unset = set(type(self).model_fields) - self.model_fields_set
        return tuple(sorted(unset - self._later))

    @classmethod
    def of_decision(cls, stored: Mapping[str, Any]) -> Self:
        """Return the rules of a decision; keys that it lacks read as what was done before them."""
        later = {key: value for key, value in BEFORE.items() if key not in stored}
        found = cls.model_validate({**stored, **later})
        found._later = frozenset(later)  # noqa: SLF001  its own
        return found

    def differences(self, decided: "GatePolicy", defaults: Collection[str]) -> list[str]:
        """Return the keys in which a policy asks for something else than was decided.

        What nobody sets is whatever the decision had, if nobody had set it there either.

        Args:
            decided: the decision's.
            defaults: keys that nobody had set in it.
        """
        asked, had = self.model_dump(mode="json"), decided.model_dump(mode="json")
        loose = {key for key in asked if key not in self.model_fields_set}
        loose &= {*defaults, *decided._later}  # noqa: SLF001  its own
        return [
            f"{key}: {had[key]!r} in the decision, {asked[key]!r} asked for"
            for key in sorted(asked)
            if asked[key] != had[key] and key not in loose
        ]

    def planned_repeats(self, task_id: str) -> int | None:
        """Return the repeats the policy plans for a task; None: what both runs have."""
        if task_id in self.repeats:
            return self.repeats[task_id]
        if self.plan == "stored":
            return None
        aime, choice, mini, full = PLANS[self.plan]
        if task_id.startswith("aime"):
            return aime
        if task_id.startswith("bbeh"):
            return mini if task_id == "bbeh_mini" else full
        return choice


def read_policy(path: Path | None) -> GatePolicy:
    """Return the policy in a YAML file, or the defaults; raises ConfigError naming the key."""
    if path is None:
        return GatePolicy()
    return parse_model(GatePolicy, read_yaml(path), where=path)
