"""The border of stored files: JSON that a run folder holds, read within limits into frozen records.

Past it, code trusts its types. A file that is damaged or was edited is refused with its name and
the field that is off. Keys that this version doesn't know are kept, so that what a later one wrote
survives a rewrite; keys that an older one didn't write have their defaults.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from g4eval.errors import StoreError
from g4eval.records import Json

MOST_BYTES = 256 * 2**20  # of one JSON file: a gate file of 5,000 samples x 64 repeats has 30 MB
SHOWN = 60  # characters of a value that an error shows

R = TypeVar("R", bound="StoredRecord")
Count = Annotated[int, Field(ge=0, le=2**53)]


class StoredRecord(BaseModel):
    """What every stored record has in common."""

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def parse(cls, values: Any, *, where: object) -> Self:
        """Return the record of a JSON object; raises StoreError with the field that is off."""
        try:
            return cls.model_validate(values)
        except (ValidationError, RecursionError) as error:
            refuse_record(error, where=where)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that was parsed, unknown keys included."""
        return self.model_dump(mode="json", exclude_unset=True)


def _has_settings(config: Mapping[str, Json]) -> Mapping[str, Json]:
    if not isinstance(config.get("set", {}), Mapping):
        raise ValueError("set is not a mapping of keys")  # noqa: TRY004  pydantic's own kind
    return config


# As a run was asked for: keys of a RunConfig, which its own parser checks.
Config = Annotated[Mapping[str, Json], AfterValidator(_has_settings)]


class StoredSampling(StoredRecord):
    """How a task's tokens were drawn."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int


class StoredPlan(StoredRecord):
    """What was planned for one task of a run."""

    title: str = ""
    version: int
    family: str = ""
    gated: bool = False
    invented: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    splits: tuple[str, ...] = ()
    grader: str
    grader_version: int = 1
    grader_name: str | None = None  # as its grades have it; None: as the task has it
    prompt: str = "default"
    prompt_sha256: str | None = None
    prompt_source: str = ""
    sampling: StoredSampling
    repeats: int = Field(ge=1, le=2**31)
    is_uneven: bool = False  # samples have fewer each, as a gate laid them out
    settings: Mapping[str, Json] = Field(default_factory=dict)
    rows_stated: Count = 0
    n_selected: Count = 0
    is_generated: bool = True
    data_is_partial: bool = False
    incomplete: str | None = None
    source: str = ""
    text: str = ""
    text_sha256: str | None = None
    published_as: str | None = None
    published_protocol: str | None = None
    stated: tuple[str, ...] = ()  # of an import: what its user said of how the answers were made

    def knows(self, name: str) -> bool:
        """Whether a setting is known: of an import only what somebody stated is."""
        return self.is_generated or name in self.stated

    @property
    def sampling_words(self) -> str:
        """How tokens were drawn, as the tables say it."""
        drawn = self.sampling
        values = {
            "temperature": f"{drawn.temperature:g}",
            "top_p": f"{drawn.top_p:g}",
            "top_k": str(drawn.top_k),
            "max_new_tokens": f"{drawn.max_new_tokens:,} tokens",
        }
        names = {"top_p": "top-p", "top_k": "top-k", "max_new_tokens": "budget"}
        known = [f"{names.get(n, n)} {value}" for n, value in values.items() if self.knows(n)]
        unknown = [names.get(n, n) for n in values if not self.knows(n)]
        return ", ".join(known + [f"{', '.join(unknown)} unknown"] * bool(unknown))


class StoredEngine(StoredRecord):
    """An engine's facts as a manifest has them; `facts` is the whole, as the fingerprint saw it."""

    engine: str = "unknown"
    engine_version: str = "unknown"
    model: str = "unknown"
    weights_fingerprint: str = "unknown"
    dtype: str = "unknown"
    quantization: str = "unknown"
    kv_cache_dtype: str = "unknown"
    attention_backend: str = "unknown"
    parallelism: str = "unknown"
    speculative_decoding: str = "unknown"
    chat_template_hash: str = "unknown"
    thinking: str = "unknown"
    reasoning_parser: str = "unknown"
    server_address: str = "none"
    other: Mapping[str, Json] = Field(default_factory=dict)
    context_tokens: int | None = None
    fingerprint: str = ""

    @property
    def facts(self) -> dict[str, Json]:
        """Every fact that can move a score, under its name."""
        return {name: value for name, value in self.as_json().items() if name != "fingerprint"}

    def fact(self, name: str) -> Json:
        """Return one fact; None: this run has none of that name."""
        return getattr(self, name, None)


class StoredIdentity(StoredRecord):
    """What must be equal for two commands to be the same run."""

    seed: int = 0


class Manifest(StoredRecord):
    """What a run is made of: manifest.json, and the same in the store."""

    run_id: str = ""
    g4eval_version: str = "unknown"
    created: str = "unknown"
    engine: StoredEngine
    engine_declared: tuple[str, ...] = ()
    engine_operation: Mapping[str, Json] = Field(default_factory=dict)
    identity: StoredIdentity = StoredIdentity()
    config: Config = Field(default_factory=dict)
    platform: Mapping[str, Json] = Field(default_factory=dict)
    graders: Mapping[str, Json] = Field(default_factory=dict)  # of those that need more than code
    tasks: Mapping[str, StoredPlan] = Field(default_factory=dict)

    @property
    def profile(self) -> str | None:
        """The name of the profile that was asked for."""
        name = self.config.get("profile")
        return name if isinstance(name, str) else None


def parse_json(text: str | bytes, *, where: object, what: str = "is not JSON") -> Any:
    """Return a JSON value; raises StoreError for what is none, is nested too deep or has NaN."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(what, where=where, hint=DAMAGED_HINT) from error


DAMAGED_HINT = "it is damaged or was edited: g4eval check RUN says what can still be read"


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run folder; raises StoreError for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would make us wait, a device never end
            raise StoreError("is not a file", where=path)
        if path.stat().st_size > MOST_BYTES:
            raise StoreError(f"is larger than {MOST_BYTES // 2**20} MiB", where=path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"can't be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise StoreError("is not JSON: not UTF-8", where=path, hint=DAMAGED_HINT) from error
    values = parse_json(text, where=path)
    if not isinstance(values, dict):
        raise StoreError(f"holds {type(values).__name__}, not an object", where=path)
    return values


def refuse_record(error: ValidationError | RecursionError, *, where: object) -> NoReturn:
    """Raise StoreError that names the first field that is off."""
    if isinstance(error, RecursionError):
        raise StoreError("is nested too deep", where=where, hint=DAMAGED_HINT) from error
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole"
    found = repr(first["input"])
    shown = found if len(found) <= SHOWN else found[:SHOWN] + "…"
    problem = "is missing" if first["type"] == "missing" else f"{shown}: {first['msg']}"
    raise StoreError(f"{key}: {problem}", where=where, hint=DAMAGED_HINT) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
