"""verdict.json and calibration.json as frozen records, each with a hash that is checked when read.

The hash of a verdict is over its whole record: what it was decided from (both engines, the policy,
the digest of the outcomes, the calibration) and what was decided. It finds edits and damage; it is
no signature, so it doesn't stop a person who makes the hash anew.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator

from g4eval.errors import StoreError
from g4eval.fingerprint import sha256_json
from g4eval.records import Json
from g4eval.store.stored import Count, StoredRecord, read_json_object

FORMAT = "g4eval-verdict"
FORMAT_VERSION = 2  # 1 had no hash
EDITED_HINT = "it was edited or is damaged: a new decision needs a new candidate run"

Pair = tuple[float, float]
Repeats = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)]  # a part of a pass: a decimal


def _check_time(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("is not a time with its zone")
    return value


def _hash_without(values: Mapping[str, Any], name: str) -> str:
    return sha256_json({key: value for key, value in values.items() if key != name})


class StoredCheck(StoredRecord):
    """One thing that equal arms must show."""

    name: str
    is_met: bool
    found: str


class StoredComponents(StoredRecord):
    """What planning needs of a task, as a calibration measured it."""

    accuracy: float | None = None
    rho: float | None = None


class Calibration(StoredRecord):
    """What an A/A calibration found of a baseline."""

    id: str  # SHA-256, in hex, over everything else
    created: str
    baseline: str
    again: str
    control: str | None = None
    engine_fingerprint: str
    checks: tuple[StoredCheck, ...] = Field(min_length=1)
    is_armed: bool
    load: Mapping[str, Mapping[str, Json]] = Field(default_factory=dict)
    drift_floor_kl: float | None = None
    drift_floor_top1_loss: float | None = None
    tasks: Mapping[str, StoredComponents] = Field(default_factory=dict)
    # Repeats of the baseline that it was made from, by task, and the hash of their outcomes; None:
    # made before 0.2.0, which didn't say.
    repeats: Mapping[str, Count] | None = None
    data: str | None = None

    _time = field_validator("created")(_check_time)

    @classmethod
    def sealed(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of a calibration that has just been made."""
        where = "the calibration"
        parsed = cls.parse({"id": "", **values}, where=where).as_json()  # as it will be written
        return cls.parse({**parsed, "id": _hash_without(parsed, "id")}, where=where)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the calibration in a file; raises StoreError where it isn't what was written."""
        return cls.checked(read_json_object(path), where=path)

    @classmethod
    def checked(cls, values: Any, *, where: object) -> Self:
        """Return the record, its hash compared; raises StoreError where they differ."""
        found = cls.parse(values, where=where)
        if found.id != _hash_without(values, "id"):
            raise StoreError(
                "the calibration is not the one that was made: its hash is another",
                where=where,
                hint="it was edited or is damaged: g4eval gate-calibrate makes it anew",
            )
        return found


class StoredArm(StoredRecord):
    """One of the two runs."""

    run_id: str
    seed: int | None = None
    engine: Mapping[str, Json] = Field(default_factory=dict)
    declared: tuple[str, ...] = ()


class StoredRate(StoredRecord):
    """A share of the answers in both runs."""

    baseline: float
    candidate: float


class StoredLength(StoredRecord):
    """How the mean length changed, with its 95 % interval."""

    change_pct: float
    low_pct: float
    high_pct: float


class StoredDetails(StoredRecord):
    """What a layer found, beside its words."""

    axis: str | None = None  # L0: what was swapped
    changed: tuple[str, ...] = ()
    unknown_in_both: tuple[str, ...] = ()
    truncated: StoredRate | None = None  # L3
    no_answer: StoredRate | None = None
    open_thought: StoredRate | None = None
    looping: StoredRate | None = None
    other_script: StoredRate | None = None
    length: StoredLength | None = None

    @property
    def rates(self) -> dict[str, StoredRate]:
        """The shares that L3 compared, by name."""
        names = ("truncated", "no_answer", "open_thought", "looping", "other_script")
        found = {name: getattr(self, name) for name in names}
        return {name: rate for name, rate in found.items() if rate is not None}


class StoredLayer(StoredRecord):
    """What one of the gate's layers said."""

    layer: str
    says: str
    findings: tuple[str, ...] = ()
    details: StoredDetails = StoredDetails()


class StoredPolicy(StoredRecord):
    """The rules of a decision, as far as they are printed; the rest is kept."""

    margin_pt: float
    ok_pt: float
    alpha_pass: float
    alpha_fail: float
    design: str
    primary: str
    guardrail_alpha: float


class StoredUse(StoredRecord):
    """Which calibration armed the gate."""

    id: str
    created: str
    age_days: float


class StoredDifference(StoredRecord):
    """The primary difference, in points."""

    delta_pt: float | None = None
    interval_fixed_pt: Pair | None = None
    interval_super_pt: Pair | None = None
    confidence_sequence_pt: Pair | None = None


class StoredTaskVerdict(StoredRecord):
    """One task's part of a verdict."""

    n_samples: Count
    n_samples_seen: Count | None = None  # by the last look; None: all
    repeats: Count
    baseline_pct: float | None = None
    candidate_pct: float | None = None
    delta_pt: float | None = None
    se_fixed_pt: float | None = None
    se_super_pt: float | None = None
    interval_fixed_pt: Pair | None = None
    discordance_pct: float | None = None
    expected_discordance_pct: float | None = None
    cannot_exclude_loss_pt: float
    excludes_guardrail_margin: bool


class StoredLook(StoredRecord):
    """One look at the accuracies; None: beyond any bound."""

    round: int
    information_fraction: float
    z_pass: float | None = None
    z_fail: float | None = None
    log_e_pass: float | None = None  # of the anytime design, in the place of z
    log_e_fail: float | None = None
    bound_pass: float
    bound_fail: float

    @property
    def has_e_values(self) -> bool:
        """Whether the design was anytime."""
        return "log_e_pass" in self.model_fields_set


class VerdictRecord(StoredRecord):
    """A gate's decision, as verdict.json holds it; everything that is printed comes from it."""

    format: str = FORMAT
    version: int = Field(ge=1)
    g4eval_version: str = "unknown"
    verdict: str = Field(pattern="^(PASS|FAIL|INCONCLUSIVE|INVALID)$")
    exit_code: int
    reasons: tuple[str, ...] = ()
    meaning: str = ""
    decided_at: str
    first_look_at: str
    baseline: StoredArm
    candidate: StoredArm
    policy: StoredPolicy
    policy_fingerprint: str
    policy_defaults: tuple[str, ...] = ()
    layers: tuple[StoredLayer, ...] = ()
    not_run: tuple[str, ...] = ()
    calibration: StoredUse | None = None
    next: tuple[str, ...] = ()
    estimand: str = ""
    design: str = ""
    primary: StoredDifference | None = None
    # Empty: accuracies were not compared.
    tasks: Mapping[str, StoredTaskVerdict] = Field(default_factory=dict)
    looks: tuple[StoredLook, ...] = ()
    pairs_used: Count = 0
    pairs_planned: Count = 0
    rounds: tuple[Mapping[str, tuple[Repeats, Repeats]], ...] | None = None
    # None: before 0.2.0, when both arms had as many repeats of every sample.
    base_repeats: Mapping[str, Count] | None = None
    allocation: Mapping[str, tuple[Count, ...]] | None = None
    rounds_used: Count = 0
    can_continue: bool = False
    data: str = ""  # hash of the outcomes that were looked at, both arms
    sha256: str | None = None  # over everything else; None: made before 0.2.0

    _times = field_validator("decided_at", "first_look_at")(_check_time)

    @classmethod
    def sealed(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of a decision that has just been made, with its hash."""
        whole = {"format": FORMAT, "version": FORMAT_VERSION, **values}
        parsed = cls.parse(whole, where="the verdict").as_json()  # as it will be written
        sealed = {**parsed, "sha256": _hash_without(parsed, "sha256")}
        return cls.parse(sealed, where="the verdict")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the verdict in a file; raises StoreError where it isn't what was decided."""
        values = read_json_object(path)
        found = cls.parse(values, where=path)
        if found.format != FORMAT or found.version > FORMAT_VERSION:
            raise StoreError(
                f"{found.format} version {found.version} is not {FORMAT} {FORMAT_VERSION}",
                where=path,
                hint="read it with the version of g4eval that wrote it",
            )
        if found.version == 1 and found.sha256 is None:
            return found
        if found.sha256 != _hash_without(values, "sha256"):
            raise StoreError(
                "the verdict is not the one that was decided: its hash is another",
                where=path,
                hint=EDITED_HINT,
            )
        return found
