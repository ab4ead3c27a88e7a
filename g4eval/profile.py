"""What is known of a model before it is loaded: profiles/NAME.yaml.

A profile is found by name, or by one of its aliases in what `--model` gives.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from g4eval.config import parse_model, read_yaml
from g4eval.errors import UsageError, nearest

_FOLDER = Path(__file__).resolve().parent / "profiles"


class Profile(BaseModel):
    """One model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub_id: str | None = None
    aliases: tuple[str, ...] = ()  # hub ids and file names of the same weights, other formats too
    published_as: str | None = None  # `model` in reports/published/scores.csv
    chat_format: Literal["gemma3", "gemma4", "plain"] = "gemma4"
    thinking: bool = False  # on unless `--set engine.thinking=false`
    chat_template_hashes: tuple[str, ...] = ()  # SHA-256 of the templates known
    sampling: Mapping[str, Any] = Field(default_factory=dict)  # keys of SamplingParams
    stop_token_ids: tuple[int, ...] = ()
    context_tokens: int | None = None
    max_new_tokens: Mapping[str, int] = Field(default_factory=dict)  # task id -> budget
    engine: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)  # engine -> its options


@cache
def all_profiles() -> dict[str, Profile]:
    """Return every profile by name."""
    profiles = {}
    for path in sorted(_FOLDER.glob("*.yaml")):
        values = {"name": path.stem, **read_yaml(path)}
        profiles[path.stem] = parse_model(Profile, values, where=path)
    return profiles


def get_profile(name: str) -> Profile:
    """Return the profile called `name`; raises UsageError for an unknown one."""
    profiles = all_profiles()
    if name not in profiles:
        raise UsageError(f"{name!r} is not a profile", hint=nearest(name, profiles))
    return profiles[name]


def profile_of(model: str) -> Profile | None:
    """Return the profile that knows a model by hub id, path or file name; None: none does.

    A name may go on after a known one ("gemma-4-31B-it-Q4_K_M.gguf"); the longest one counts.
    """
    if model.lower() in all_profiles():
        return all_profiles()[model.lower()]
    wanted = Path(model).name.lower()
    best: tuple[int, Profile] | None = None
    for profile in all_profiles().values():
        for known in filter(None, (profile.hub_id, *profile.aliases)):
            name = known.rpartition("/")[2].lower().removesuffix("-gguf")
            at = wanted.find(name)
            if at >= 0 and _is_whole(wanted, at, at + len(name)) and len(name) > (best or (0,))[0]:
                best = (len(name), profile)
    return None if best is None else best[1]


def _is_whole(text: str, start: int, end: int) -> bool:
    return not (text[:start][-1:].isalnum() or text[end : end + 1].isalnum())
