"""A gate file as frozen records: what `export --to gate` writes, checked when it is read."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from g4eval.errors import StoreError
from g4eval.fingerprint import sha256_json
from g4eval.records import Json
from g4eval.store.stored import Config, StoredEngine, StoredRecord

Bits = tuple[Annotated[str, Field(pattern="^[01]*$")], ...]
Tokens = Annotated[float, Field(ge=0, le=2**53)]


class GateFileTask(StoredRecord):
    """One task: a row a sample, a letter or a number a repeat."""

    protocol: Mapping[str, Json]
    sample_ids: tuple[str, ...]
    groups: tuple[str, ...]
    outcomes: tuple[Annotated[str, Field(pattern="^[ICNU.R]*$")], ...]
    truncated: Bits
    open_thoughts: Bits
    looping: Bits = ()  # () here and below: made by a version that didn't write it
    other_script: Bits = ()
    tokens: tuple[tuple[Tokens | None, ...], ...]
    prompt_hashes: tuple[str | tuple[str, ...], ...]  # one for all repeats, or each its own
    text_hashes: tuple[tuple[Annotated[str, Field(pattern="^([0-9a-f]{1,16})?$")], ...], ...] = ()
    long_texts: Bits = ()
    questions: tuple[str, ...] = ()

    @property
    def n_repeats(self) -> int:
        """How many repeats a row has."""
        return len(self.outcomes[0]) if self.outcomes else 0

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        k = self.n_repeats
        later = (self.looping, self.other_script, self.text_hashes, self.long_texts)
        rows = [self.outcomes, self.truncated, self.open_thoughts, self.tokens]
        rows += [column for column in later if column]
        of_samples = [
            self.groups,
            self.prompt_hashes,
            *([self.questions] if self.questions else []),
        ]
        for column in (*rows, *of_samples):
            if len(column) != len(self.sample_ids):
                raise ValueError("has another number of rows than of samples")
        for column in rows:
            if any(len(row) != k for row in column):
                raise ValueError("has rows of different lengths")
        if any(not isinstance(h, str) and len(h) != k for h in self.prompt_hashes):
            raise ValueError("has prompt hashes of another number than of repeats")
        if len(set(self.sample_ids)) != len(self.sample_ids):
            raise ValueError("has a sample twice")
        return self


class GateFile(StoredRecord):
    """The whole file."""

    format: str
    version: int
    run_id: str
    seed: int | None
    facts: Mapping[str, Json]
    declared: tuple[str, ...]
    config: Config
    calibration: Mapping[str, Json] | None
    tasks: Mapping[str, GateFileTask]
    sha256: str | None = None  # over everything else; None: made before 0.2.0

    @classmethod
    def checked(cls, values: Mapping[str, Any], *, where: object) -> Self:
        """Return the record of a file's object; raises StoreError where it isn't what was made."""
        found = cls.parse(values, where=where)
        StoredEngine.parse(found.facts, where=where)
        if found.sha256 is not None and found.sha256 != seal_of(values):
            raise StoreError(
                "the gate file is not the one that was made: its hash is another",
                where=where,
                hint="it was edited or is damaged: g4eval export RUN --to gate makes it anew",
            )
        return found


def seal_of(values: Mapping[str, Any]) -> str:
    """Return the hash of a gate file's object, whatever hash it holds."""
    return sha256_json({name: value for name, value in values.items() if name != "sha256"})
