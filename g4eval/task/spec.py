"""The model of a task's YAML file: every key, its type and its rule.

docs/new-task.md explains them by example; `g4eval tasks` lists what is found.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSpec(Strict):
    """One place where the rows can come from; the first one that is there is taken."""

    kind: Literal["directory", "hub", "package"]
    # directory: a file below --data-dir; package: a file in the family's folder.
    path: str | None = None
    member: str | None = None  # the file inside a zip archive
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

    rows: int = Field(gt=0)
    # A file in the family's folder: a line a sample, its id and a hash of its target.
    targets: str | None = None
    only_known: bool = False  # leave out the rows that the targets file doesn't name
    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    hint: str | None = None  # where to get the data, said when it is missing


class PromptSpec(Strict):
    """One wording of the prompt. A benchmark's prompt is data: verbatim, with its source."""

    template: str  # a Jinja file in the family's folder: the user turn
    system: str | None = None  # a Jinja file: the system turn
    source: str  # where the wording comes from


class TaskSpec(Strict):
    """One scored benchmark."""

    id: Identifier
    version: int = Field(ge=1)  # raised when prompt, data or grader can move a score
    title: str
    description: str = ""
    licence: str
    gated: bool = False  # no question, option or thought leaves the store of completions
    invented: bool = False  # demo tasks: scores mean nothing outside g4eval
    data: DataSpec
    prompts: Mapping[str, PromptSpec] = Field(min_length=1)
    prompt: str = "default"  # the variant used unless TASK.prompt says another
    grader: str  # a name of graders/base.py, or plugin:CLASS
    metrics: tuple[str, ...] = ("accuracy",)  # the first one is the score
    splits: tuple[str, ...] = ()  # sample groups that get a line of their own
    limit_by: str | None = None  # --limit takes this group's values in turn
    repeats: int = Field(default=1, ge=1)
    max_new_tokens: int = Field(default=32768, gt=0)
    stop: tuple[str, ...] = ()  # texts that end generation: few-shot prompts of base models
    import_targets: tuple[str, ...] = ()  # targets that an imported line may bring itself
    settings: Mapping[str, Any] = Field(default_factory=dict)  # more TASK.KEYs, with defaults
    published_as: str | None = None  # `benchmark` in reports/published/scores.csv
    published_protocol: str | None = None

    @model_validator(mode="after")
    def _default_prompt_exists(self) -> Self:
        if self.prompt not in self.prompts:
            raise ValueError(f"prompt {self.prompt!r} is not one of {', '.join(self.prompts)}")
        return self
