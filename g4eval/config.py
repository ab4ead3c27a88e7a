"""What a user can ask of a run, parsed once and frozen; unknown keys are refused.

`RunConfig` holds the keys of the command line and of `--config FILE.yaml`; flags win over the file.
`--set` keys are `engine.KEY`, `sampling.KEY` and `TASK.KEY`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from g4eval.bounded_yaml import MAX_CHARACTERS, load_yaml
from g4eval.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)
MAX_REPEATS = 100_000
SHOWN = 300  # characters of a value that breaks its rule


class SamplingParams(BaseModel):
    """How tokens are drawn. The defaults are what Google recommends for Gemma 3 and 4."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(default=1.0, ge=0, le=10)  # 0: greedy
    top_p: float = Field(default=0.95, gt=0, le=1)  # 1: no cut
    top_k: int = Field(default=64, ge=0)  # 0: no cut
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    stop: tuple[str, ...] = ()  # texts that end generation; left out of the completion
    max_new_tokens: int = Field(default=32768, gt=0)  # reasoning included


class RunConfig(BaseModel):
    """One `g4eval run`: every flag of the command is a key of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ()
    model: str | None = None
    engine: str = "auto"
    profile: str | None = None
    base_url: str | None = None
    repeats: int | None = Field(
        default=None, ge=1, le=MAX_REPEATS, strict=True
    )  # None: each task's own number
    limit: int | None = Field(default=None, ge=1, strict=True)  # None: all samples
    seed: int = Field(default=0, ge=0, strict=True)
    data_dir: Path | None = None
    tasks_dir: Path | None = None
    allow_partial_data: bool = False
    allow_ungraded: bool = False
    runs_dir: Path = Path("runs")
    run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
    reuse: Path | None = None
    strict: bool = False
    header: tuple[str, ...] = Field(default=(), repr=False)  # NAME: VALUE; values aren't stored
    retry_refused: bool = False  # send again what a server refused for good
    never_as: Literal["wrong"] | None = None  # how what can never succeed counts; None: ungraded
    settings: Mapping[str, Any] = Field(default_factory=dict, alias="set")

    @field_validator("settings")
    @classmethod
    def _keys_have_a_group(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in settings:
            group, dot, name = key.partition(".")
            if not (group and dot and name):
                raise ValueError(f"{key!r} is not engine.KEY, sampling.KEY or TASK.KEY")
        return dict(settings)

    def group(self, name: str) -> dict[str, Any]:
        """Return the `--set` values of one group, without its name: engine, sampling or a task."""
        prefix = name + "."
        return {k[len(prefix) :]: v for k, v in self.settings.items() if k.startswith(prefix)}


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `--set KEY=VALUE` flags; VALUE is read as YAML: 3 is a number."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{pair!r} is not KEY=VALUE", where="--set")
        try:
            settings[key.strip()] = load_yaml(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            shown = "it" if "extra_body" in key else f"{text!r:.{SHOWN}}"
            raise ConfigError(f"{shown} can't be read as a value", where=f"--set {key}") from error
    return settings


def parse_config(values: Mapping[str, Any], *, where: str) -> RunConfig:
    """Return a checked RunConfig; raises ConfigError that names the key and its rule."""
    return parse_model(RunConfig, values, where=where)


def parse_model(
    model: type[Model], values: Mapping[str, Any], *, where: object, prefix: str = ""
) -> Model:
    """Check `values` against a pydantic model; the first broken rule becomes a ConfigError."""
    try:
        return model.model_validate(dict(values))
    except RecursionError as error:
        raise ConfigError("is nested too deeply", where=where) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [f.alias or name for name, f in model.model_fields.items()]
            hint = nearest(str(first["loc"][-1]), known)
            raise ConfigError(
                f"{key!r:.{SHOWN}} is not a known key", where=where, hint=hint
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        place = f"{key}: " if first["loc"] else prefix  # no place: several keys together
        secret = any(name in key for name in ("header", "extra_body"))
        shown = "what is given" if secret else f"{first['input']!r:.{SHOWN}}"
        raise ConfigError(f"{place}{shown} breaks its rule: {message}", where=where) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raises ConfigError with the line for anything else."""
    try:
        with path.open("rb") as stream:
            text = stream.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
        value = load_yaml(text)
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=path) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"is not YAML: {_first_line(error)}", where=path) from error
    if not isinstance(value, dict):
        raise ConfigError(f"holds {type(value).__name__}, not a mapping of keys", where=path)
    return value


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} (line {mark.line + 1})" if mark is not None else problem
