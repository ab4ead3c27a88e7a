"""The model of a task's YAML file: every key, its type and its rule.

docs/new-task.md explains them by example; `g4eval tasks` lists what is found.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from g4eval.config import MAX_REPEATS

MAX_ROWS = 10_000_000
MAX_TOKENS = 1 << 32
MAX_TEXT = 10_000  # characters of a title, a licence, a wording's source


def _file_name(text: str) -> str:
    parts = PurePosixPath(text).parts
    if not parts or "\0" in text or max(len(part.encode()) for part in parts) > 255:
        raise ValueError("not the name of a file")
    return text


def _rounded(text: str) -> str:
    text.encode("utf-8")  # half a surrogate pair raises a ValueError
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_rounded)]
FileName = Annotated[Text, Field(min_length=1, max_length=1024), AfterValidator(_file_name)]
Count = Annotated[int, Field(ge=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Metric = Literal["accuracy", "pass@k", "maj@k", "macro", "adjusted_harmonic_mean"]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSpec(Strict):
    """One place where the rows can come from; the first one that is there is taken."""

    kind: Literal["directory", "hub", "package"]
    # directory: a file below --data-dir; package: a file in the family's folder.
    path: FileName | None = None
    member: Text | None = None  # the file inside a zip archive
    password: str | None = None  # of the archive, where its authors publish it
    dataset: str | None = None  # hub: "owner/name"
    name: str | None = None  # hub: configuration
    split: str = "train"
    revision: str | None = None  # hub: commit; None: nobody could read one in a public source
    files: tuple[str, ...] = ()  # hub: read these files instead of a split
    # Sample field -> column, or columns that become a list. `sample_id` and `target` are always
    # there; the rest are prompt fields. A field `options` makes the task multiple choice.
    columns: Mapping[str, str | tuple[str, ...]] = Field(default_factory=dict)
    groups: Mapping[str, str] = Field(default_factory=dict)  # sample group -> column
    incomplete: str | None = None  # what its rows lack, in words; the run is marked partial
    text_sha256: Sha256 | None = None  # of ids and prompt fields; None: not verified

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if self.kind == "hub" and not self.dataset:
            raise ValueError("a hub source needs dataset")
        if self.kind != "hub" and not self.path:
            raise ValueError(f"a {self.kind} source needs path")
        return self


class DataSpec(Strict):
    """Which rows belong to the task, and how to know them."""

    rows: Count = Field(le=MAX_ROWS)
    # A file in the family's folder: a line a sample, its id and a hash of its target.
    targets: FileName | None = None
    only_known: Flag = False  # leave out the rows that the targets file doesn't name
    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    hint: str | None = None  # where to get the data, said when it is missing


class PromptSpec(Strict):
    """One wording of the prompt. A benchmark's prompt is data: verbatim, with its source."""

    template: FileName  # a Jinja file in the family's folder: the user turn
    system: FileName | None = None  # a Jinja file: the system turn
    source: Text  # where the wording comes from


class TaskSpec(Strict):
    """One scored benchmark."""

    id: Identifier
    version: Count  # raised when prompt, data or grader can move a score
    title: Text
    description: Text = ""
    licence: Text
    gated: Flag = False  # no question, option or thought leaves the store of completions
    invented: Flag = False  # demo tasks: scores mean nothing outside g4eval
    data: DataSpec
    prompts: Mapping[str, PromptSpec] = Field(min_length=1)
    prompt: str = "default"  # the variant used unless TASK.prompt says another
    dialogue: Text | None = None  # plugin:CLASS; None: the prompt is asked once
    grader: Text  # a name of graders/base.py, or plugin:CLASS
    metrics: tuple[Metric, ...] = Field(
        default=("accuracy",), min_length=1
    )  # the first one is the score
    splits: tuple[str, ...] = ()  # sample groups that get a line of their own
    limit_by: str | None = None  # --limit takes this group's values in turn
    repeats: Count = Field(default=1, le=MAX_REPEATS)
    max_new_tokens: Count = Field(default=32768, le=MAX_TOKENS)
    stop: tuple[str, ...] = ()  # texts that end generation: few-shot prompts of base models
    import_targets: tuple[str, ...] = ()  # targets that an imported line may bring itself
    settings: Mapping[str, Any] = Field(default_factory=dict)  # more TASK.KEYs, with defaults
    published_as: str | None = None  # `benchmark` in reports/published/scores.csv
    published_protocol: str | None = None

    @model_validator(mode="after")
    def _default_prompt_exists(self) -> Self:
        if {"macro", "adjusted_harmonic_mean"} & set(self.metrics) and not self.splits:
            raise ValueError("macro and adjusted_harmonic_mean need splits")
        if self.prompt not in self.prompts:
            raise ValueError(f"prompt {self.prompt!r} is not one of {', '.join(self.prompts)}")
        return self
