"""Rows in, checked samples out: from the data folder, the hub or the package.

Two checksums. *Targets* are checked row by row and must agree. *Text* (ids and prompt fields) has a
hash for some sources only: without one the task is loaded and shown as "text not verified"; a text
that differs from a known hash is refused.
"""

import csv
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from g4eval.errors import DataError, MissingExtraError, TaskError
from g4eval.fingerprint import canonical_json
from g4eval.jsonlines import read_json_lines
from g4eval.records import Sample
from g4eval.tasking.conversion import samples_of
from g4eval.tasking.hub import hub_rows
from g4eval.tasking.loader import Task
from g4eval.tasking.spec import SourceSpec

TARGET_HASH_DIGITS = 16
MAX_FIELD_CHARACTERS = 1 << 24  # of a CSV field; the csv module's own limit is 131,072
MAX_MEMBER_BYTES = 1 << 30  # of an archive, unpacked
AGAIN = "take the data from its source again, unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """A task's samples and what is known of them."""

    samples: list[Sample]
    source: str  # where they came from, in words
    rows_stated: int
    text: str  # "verified" or "not verified"
    text_sha256: str
    incomplete: str | None = None  # what the source's rows lack, in words

    @property
    def is_partial(self) -> bool:
        """Whether some of the task's rows are missing, or lack something."""
        return len(self.samples) < self.rows_stated or self.incomplete is not None


def load_samples(task: Task, data_dir: Path | None, *, allow_partial: bool = False) -> TaskData:
    """Load a task's samples from the first source that is there, and check them.

    Raises DataError where none is there, where rows are missing (unless `allow_partial`), doubled
    or empty, or where targets or text aren't what the task states. No message quotes a row.
    """
    spec = task.spec
    source, rows = _first_source(task, data_dir)
    where = _place(source, task, data_dir)
    samples = _known_ones(task, samples_of(task, source, rows, where))
    _check_rows(task, samples, where, allow_partial=allow_partial)
    _check_targets(task, samples, where)
    text = text_hash(samples)
    is_whole = len(samples) == spec.data.rows
    if source.text_sha256 is not None and is_whole and text != source.text_sha256:
        raise DataError(
            f"the text of {spec.id!r} is not the text that the task states "
            f"(SHA-256 {text[:12]}…, stated {source.text_sha256[:12]}…)",
            where=where,
            hint=AGAIN,
        )
    return TaskData(
        samples=samples,
        source=_source_name(source, task),
        rows_stated=spec.data.rows,
        text="verified" if text == source.text_sha256 else "not verified",
        text_sha256=text,
        incomplete=source.incomplete,
    )


def target_hash(sample_id: str, target: Any) -> str:
    """Return the hash of one row's target, as it stands in a task's file of targets."""
    digest = hashlib.sha256(canonical_json([sample_id, target])).hexdigest()
    return digest[:TARGET_HASH_DIGITS]


def text_hash(samples: Iterable[Sample]) -> str:
    """Return the SHA-256 over ids and prompt fields, in order of id."""
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda s: s.sample_id):
        digest.update(canonical_json([sample.sample_id, dict(sample.fields)]))
        digest.update(b"\n")
    return digest.hexdigest()


def _first_source(
    task: Task, data_dir: Path | None
) -> tuple[SourceSpec, Iterable[Mapping[str, Any]]]:
    tried: list[str] = []
    for source in task.spec.data.sources:
        place = _place(source, task, data_dir)
        if source.kind == "hub":
            try:
                return source, hub_rows(source)
            except (DataError, MissingExtraError) as error:
                tried.append(f"{place}: {error.what}")
        elif source.kind == "directory" and data_dir is None:
            tried.append(f"{place}: no --data-dir was given")
        elif (path := _path(source, task, data_dir)).is_file():
            return source, _file_rows(path, source)
        else:
            tried.append(f"{place}: no such file")
    raise DataError(
        f"the data of {task.spec.id!r} can't be found:\n    " + "\n    ".join(tried),
        hint=task.spec.data.hint or "give the folder that holds it with --data-dir",
    )


def _path(source: SourceSpec, task: Task, data_dir: Path | None) -> Path:
    root = task.folder if source.kind == "package" else data_dir or Path()
    return root / (source.path or "")


def _place(source: SourceSpec, task: Task, data_dir: Path | None) -> str:
    if source.kind == "hub":
        revision = source.revision or "latest, unverified"
        return f"hub {source.dataset} ({source.name or source.split}, revision {revision})"
    if source.kind == "directory" and data_dir is None:
        return f"DATA_DIR/{source.path}"
    return str(_path(source, task, data_dir)) + (f":{source.member}" if source.member else "")


def _source_name(source: SourceSpec, task: Task) -> str:
    """Return a source's place as runs record it: the same on every machine."""
    if source.kind == "hub":
        return _place(source, task, None)
    root = f"package {task.family}" if source.kind == "package" else "DATA_DIR"
    return f"{root}/{source.path}" + (f":{source.member}" if source.member else "")


def _file_rows(path: Path, source: SourceSpec) -> Iterable[Mapping[str, Any]]:
    if source.member is not None:
        return _archive_rows(path, source.member, source.password)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _csv_rows(stream, str(path))
    return (row for _, row in read_json_lines(path, error=DataError))


def _archive_rows(path: Path, member: str, password: str | None) -> list[dict[str, Any]]:
    secret = None if password is None else password.encode()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member, pwd=secret) as stream:
            data = stream.read(MAX_MEMBER_BYTES + 1)
        if len(data) > MAX_MEMBER_BYTES:
            raise DataError(
                f"{member!r} in the archive unpacks to over {MAX_MEMBER_BYTES:,} bytes",
                where=path,
                hint=AGAIN,
            )
        text = data.decode("utf-8")
    except KeyError as error:
        raise DataError(f"the archive has no {member!r}", where=path, hint=AGAIN) from error
    except RuntimeError as error:  # what zipfile raises for a missing or wrong password
        raise DataError(
            "the archive is locked, and "
            + ("the task states no password" if password is None else "the task's password is off"),
            where=path,
            hint="take the archive from its authors again; `password` stands in the task's YAML",
        ) from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, zlib.error, ValueError) as error:
        # A wrong password passes the archive's own check once in 256 times and gives noise.
        raise DataError(
            f"is not a readable archive ({type(error).__name__})",
            where=path,
            hint=AGAIN,
        ) from error
    if member.endswith(".csv"):
        return _csv_rows(io.StringIO(text, newline=""), f"{path}:{member}")
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):
        what = f"{member!r} in the archive is not JSON lines"
        raise DataError(what, where=path, hint=AGAIN) from None


def _csv_rows(stream: IO[str], where: str) -> list[dict[str, Any]]:
    """Read CSV with a header; raises DataError for what is none, quoting no row."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        rows = list(csv.DictReader(stream))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"is no CSV ({type(error).__name__})", where=where, hint=AGAIN) from None
    longer = [number for number, row in enumerate(rows, 1) if None in row]
    if longer:
        raise DataError(f"row {longer[0]} has more fields than the header", where=where, hint=AGAIN)
    return rows


def _check_rows(task: Task, samples: list[Sample], where: str, *, allow_partial: bool) -> None:
    spec = task.spec
    seen: set[str] = set()
    for number, sample in enumerate(samples, 1):
        if not sample.sample_id or sample.target in (None, ""):
            what = f"row {number} is empty: no id or no target"
            raise DataError(what, where=where, hint=AGAIN)
        if sample.sample_id in seen:
            what = f"{sample.sample_id!r} is there twice (row {number})"
            raise DataError(what, where=where, hint=AGAIN)
        seen.add(sample.sample_id)
    if len(samples) > spec.data.rows or not samples:
        what = f"{spec.id!r} has {spec.data.rows} rows, and {len(samples)} are here"
        raise DataError(what, where=where, hint=AGAIN)
    if len(samples) < spec.data.rows and not allow_partial:
        raise DataError(
            f"{spec.id!r} has {spec.data.rows} rows, and only {len(samples)} are here",
            where=where,
            hint="get all of them, or run what is there with --allow-partial-data: it is then "
            "marked partial and never compared with a published score",
        )


def _known_ones(task: Task, samples: list[Sample]) -> list[Sample]:
    data = task.spec.data
    if not data.only_known or data.targets is None:
        return samples
    known = dict(_target_lines(task.folder / data.targets))
    return [sample for sample in samples if sample.sample_id in known]


def _check_targets(task: Task, samples: list[Sample], where: str) -> None:
    if task.spec.data.targets is None:
        return
    known = dict(_target_lines(task.folder / task.spec.data.targets))
    unknown = [s.sample_id for s in samples if s.sample_id not in known]
    wrong = [
        s.sample_id
        for s in samples
        if s.sample_id in known and known[s.sample_id] != target_hash(s.sample_id, s.target)
    ]
    for ids, complaint in ((unknown, "ids that the task doesn't know"), (wrong, "another target")):
        if ids:
            shown = ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")
            raise DataError(
                f"{len(ids)} of {len(samples)} rows of {task.spec.id!r} have {complaint}: {shown}",
                where=where,
                hint=AGAIN,
            )


def _target_lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                sample_id, _, digest = line.rpartition(" ")
                yield sample_id, digest
    except OSError as error:
        raise TaskError(f"can't be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise TaskError("is not UTF-8", where=path) from error
