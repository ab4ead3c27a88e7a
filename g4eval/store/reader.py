"""Read a run folder: tasks, samples, grades and completions, one at a time or streamed.

Used by the store itself, `show`, `export`, `report` and `gate`. Reading never writes, so a run can
be looked at while it is under way, or from a folder that can't be written.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from g4eval.errors import StoreError, UsageError, nearest
from g4eval.records import Completion, Grade, Message, StopReason, StoredTry, ToolResult
from g4eval.store import schema
from g4eval.store.birth import DATABASE
from g4eval.store.columns import Columns
from g4eval.store.damage import bordered, check_row, check_tries, check_whole
from g4eval.store.manifest import read_manifest
from g4eval.store.opening import open_to_read, version_of
from g4eval.store.rows import (
    N_HASHED,
    StoredRow,
    StoredSample,
    StoredTexts,
    check_completion,
    checked_grade,
    outcome_row,
    parse_groups,
)
from g4eval.store.stored import Manifest, StoredPlan, parse_json


class RunReader:
    """Reads one run folder; a context manager. Raises StoreError where there is no run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._db = open_to_read(folder)
        self._is_checked = False
        try:
            self._columns = self._look_at_columns()
        except StoreError:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.meta().get("run_id", self.folder.name)

    @bordered
    def _look_at_columns(self) -> Columns:
        self._version = version_of(self._db, self.folder)
        schema.make_views(self._db, self._version)
        return Columns(self._db)

    def _check_whole(self) -> None:
        """Check the database's pages and indexes, once, before a table is read from it."""
        if not self._is_checked:
            check_whole(self._db, self.folder / DATABASE)
            if self._version >= schema.VERSION_OF_TRIES:
                check_tries(self._db)
            self._is_checked = True

    @bordered
    def meta(self) -> dict[str, str]:
        """Return what is known of the run as a whole."""
        rows = self._db.execute(
            f"SELECT name, value, {self._columns.added('meta', 'row_hash', 'm')} FROM meta m"
        )
        found = {}
        for name, value, stored_hash in rows:
            check_row((name, value), stored_hash, (str, str), f"meta {name!r}")
            found[name] = value
        return found

    def manifest(self) -> Manifest:
        """Return what the run is made of: manifest.json's content, as the store has it."""
        text = self.meta().get("manifest")
        if text is None:
            return read_manifest(self.folder)
        where = f"{self.folder / DATABASE}, manifest"
        stored = Manifest.parse(parse_json(text, where=where), where=where)
        return stored.model_copy(update={"tasks": self.tasks()})

    @property
    def never_as(self) -> object:
        """How what was refused for good counts: `wrong`, or None for ungraded."""
        return self.manifest().config.get("never_as") if "manifest" in self.meta() else None

    @bordered
    def tasks(self) -> dict[str, StoredPlan]:
        """Return what was planned for each task, by task id in order."""
        hashed = self._columns.added("tasks", "row_hash", "t")
        rows = self._db.execute(f"SELECT task_id, record, {hashed} FROM tasks t ORDER BY task_id")
        plans = {}
        for task_id, record, stored_hash in rows:
            check_row((task_id, record), stored_hash, (str, str), f"task {task_id!r}")
            where = f"{self.folder / DATABASE}, task {task_id}"
            plans[task_id] = StoredPlan.parse(parse_json(record, where=where), where=where)
        return plans

    @bordered
    def samples(self, task_id: str) -> list[StoredSample]:
        """Return a task's samples in the task's order."""
        rows = self._db.execute(
            "SELECT task_id, sample_id, position, target, groups, "
            f"{self._columns.added('samples', 'row_hash', 's')} FROM samples s WHERE task_id = ? "
            "ORDER BY position",
            (task_id,),
        )
        found = []
        for *values, stored_hash in rows:
            _, sample_id, position, target, groups = values
            if stored_hash is None or schema.row_hash(*values) != stored_hash:
                kinds = (str, str, int, str, str)
                check_row(values, stored_hash, kinds, f"sample {sample_id!r}")
            found.append(
                StoredSample(
                    sample_id=sample_id,
                    position=position,
                    target=None if target is None else json.loads(target),
                    groups={} if groups == "{}" else parse_groups(groups),
                )
            )
        return found

    @bordered
    def rows(self, task_id: str) -> Iterator[StoredRow]:
        """Yield every completion of a task with its newest grade, by sample and repeat."""
        self._check_whole()
        rows = self._db.execute(
            f"SELECT {self._columns.hashed_completion()}, {self._columns.hashed_grade()} "
            "FROM answers c LEFT JOIN grades g ON g.id = "
            "(SELECT MAX(id) FROM grades WHERE key = c.key) "
            "WHERE c.task_id = ? ORDER BY c.sample_id, c.repeat",
            (task_id,),
        )
        for row in rows:
            check_completion(row)
            yield StoredRow(
                key=row[0],
                sample_id=row[2],
                repeat=row[3],
                stop_reason=schema.STOP_REASONS[row[4]],
                thought=schema.THOUGHTS[row[5]],
                text_hash=row[6],
                prompt_hash=row[7],
                prompt_tokens=row[8],
                reasoning_tokens=row[9],
                completion_tokens=row[10],
                started_at=row[11],
                finished_at=row[12],
                grade=checked_grade(row[N_HASHED + 1 :]),
            )

    @bordered
    def outcome_rows(self, task_id: str) -> Iterator[tuple[Any, ...]]:
        """Yield what the gate reads of each completion, as plain values.

        A tuple: sample id, repeat, outcome (None: not graded), stop reason, thought, completion
        tokens, prompt hash, grader, grader version, text hash, row. `rows` says more and takes ten
        times as long.
        """
        self._check_whole()
        rows = self._db.execute(
            f"SELECT {self._columns.hashed_completion()}, {self._columns.hashed_grade()}, c.id "
            "FROM answers c LEFT JOIN grades g ON g.id = "
            "(SELECT MAX(id) FROM grades WHERE key = c.key) WHERE c.task_id = ?",
            (task_id,),
        )
        for row in rows:
            yield outcome_row(row)

    @bordered
    def written_texts(self, *, after: int) -> Iterator[tuple[int, str, str | None, str | None]]:
        """Yield row, text, reasoning and prompt hash of each completion behind row `after`."""
        rows = self._db.execute(
            "SELECT id, text, reasoning, prompt_hash FROM answers WHERE id > ? ORDER BY id",
            (after,),
        )
        for row, text, reasoning, prompt_hash in rows:
            thought = None if reasoning is None else schema.unpack_text(reasoning)
            yield row, schema.unpack_text(text), thought, prompt_hash

    @bordered
    def text_characters(self, row: int) -> int:
        """Return how many characters the reasoning and text of a completion have."""
        text, reasoning = self._db.execute(
            "SELECT text, reasoning FROM completions WHERE id = ?", (row,)
        ).fetchone()
        thought = 0 if reasoning is None else len(schema.unpack_text(reasoning))
        return thought + len(schema.unpack_text(text))

    @bordered
    def texts(self, task_id: str) -> Iterator[StoredTexts]:
        """Yield what a reader looks at, by sample and repeat; no token ids and no raw text."""
        rows = self._db.execute(
            "SELECT c.sample_id, c.repeat, c.text, c.reasoning, c.stop_reason, c.prompt_hash, "
            "c.prompt_tokens, c.reasoning_tokens, c.started_at, c.finished_at, "
            f"{self._columns.hashed_grade()} FROM answers c LEFT JOIN grades g ON g.id = "
            "(SELECT MAX(id) FROM grades WHERE key = c.key) "
            "WHERE c.task_id = ? ORDER BY c.sample_id, c.repeat",
            (task_id,),
        )
        for row in rows:
            yield StoredTexts(
                sample_id=row[0],
                repeat=row[1],
                text=row[2],
                reasoning=row[3],
                stop_reason=StopReason(row[4]),
                prompt_hash=row[5],
                prompt_tokens=row[6],
                reasoning_tokens=row[7],
                started_at=row[8],
                finished_at=row[9],
                grade=checked_grade(row[10:]),
            )

    @bordered
    def completion(self, key: str) -> Completion | None:
        """Return one completion with its texts; None: it isn't stored."""
        row = self._db.execute(
            f"SELECT {self._columns.completion()} FROM completions c WHERE key = ?",
            (key,),
        ).fetchone()
        return None if row is None else schema.row_completion(row)

    @bordered
    def completions(self, task_id: str, sample_id: str | None = None) -> Iterator[Completion]:
        """Yield a task's completions with their texts, by sample and repeat."""
        where = "task_id = ?" if sample_id is None else "task_id = ? AND sample_id = ?"
        values = (task_id,) if sample_id is None else (task_id, sample_id)
        rows = self._db.execute(
            f"SELECT {self._columns.completion()} FROM answers c WHERE {where} "
            "ORDER BY sample_id, repeat",
            values,
        )
        for row in rows:
            yield schema.row_completion(row)

    @bordered
    def ungraded(
        self, task_id: str, grader: str, version: int, *, after: int = 0, retry: bool, limit: int
    ) -> list[tuple[int, StoredTry]]:
        """Return (row id, try) of the next ones that this grader's version must grade.

        Args:
            task_id: the task.
            grader: its grader's name.
            version: its grader's version.
            after: only rows behind this id; a caller pages with it.
            retry: also those that it failed to grade before.
            limit: at most so many.
        """
        graded = "AND g.outcome != 'ungraded'" if retry else ""
        rows = self._db.execute(
            f"SELECT id, {self._columns.completion()} FROM answers c "
            "WHERE task_id = ? AND id > ? AND NOT EXISTS (SELECT 1 FROM grades g WHERE "
            f"g.key = c.key AND g.grader = ? AND g.grader_version = ? {graded}) "
            "ORDER BY id LIMIT ?",
            (task_id, after, grader, version, limit),
        )
        return self._tries_of(task_id, rows)

    @bordered
    def page(self, task_id: str, *, after: int, limit: int) -> list[tuple[int, StoredTry]]:
        """Return (row id, try) of the next ones that came to their end behind row `after`."""
        rows = self._db.execute(
            f"SELECT id, {self._columns.completion()} FROM answers c "
            "WHERE task_id = ? AND id > ? ORDER BY id LIMIT ?",
            (task_id, after, limit),
        )
        return self._tries_of(task_id, rows)

    def _tries_of(self, task_id: str, rows: Iterable[Sequence[Any]]) -> list[tuple[int, StoredTry]]:
        """Return (row id, try) of rows that hold an id and the last completion of a try."""
        uses_tools = self._uses_tools(task_id)
        tries = []
        for row in rows:
            last = schema.row_completion(row[1:])
            place = last.task_id, last.sample_id, last.repeat
            steps = (last,) if last.step == 0 else self.steps(*place)
            results = self.tool_results(*place) if uses_tools else ()
            tries.append((row[0], StoredTry(completions=steps, tool_results=results)))
        return tries

    def _uses_tools(self, task_id: str) -> bool:
        if self._version < schema.VERSION_OF_TRIES:
            return False
        sql = "SELECT 1 FROM tool_results WHERE task_id = ? LIMIT 1"
        return self._db.execute(sql, (task_id,)).fetchone() is not None

    @bordered
    def grade(self, key: str) -> Grade | None:
        """Return the newest grade of a completion; None: it has none."""
        row = self._db.execute(
            f"SELECT {self._columns.hashed_grade()} FROM grades g WHERE key = ? "
            "ORDER BY id DESC LIMIT 1",
            (key,),
        ).fetchone()
        return None if row is None else checked_grade(row)

    @bordered
    def last_row(self, task_id: str) -> int:
        """Return the row id of the task's newest completion; 0 without one."""
        row = self._db.execute(
            "SELECT id FROM answers WHERE task_id = ? ORDER BY id DESC LIMIT 1", (task_id,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    @bordered
    def finished_tries(self, task_id: str) -> set[tuple[str, int]]:
        """Return the (sample, repeat) pairs of a task that came to their end."""
        rows = self._db.execute(
            "SELECT sample_id, repeat FROM answers WHERE task_id = ?", (task_id,)
        )
        return {(sample_id, repeat) for sample_id, repeat in rows}

    @bordered
    def begun_tries(self, task_id: str) -> set[tuple[str, int]]:
        """Return the (sample, repeat) pairs of which a step is stored and the end is not."""
        rows = self._db.execute(
            "SELECT DISTINCT sample_id, repeat FROM completions c WHERE task_id = ? AND NOT EXISTS "
            f"(SELECT 1 FROM answers a WHERE {_SAME_TRY})",
            (task_id,),
        )
        return {(sample_id, repeat) for sample_id, repeat in rows}

    @bordered
    def steps(self, task_id: str, sample_id: str, repeat: int) -> tuple[Completion, ...]:
        """Return all completions of one try in order of their steps."""
        rows = self._db.execute(
            f"SELECT {self._columns.completion()} FROM completions c "
            "WHERE task_id = ? AND sample_id = ? AND repeat = ? ORDER BY step",
            (task_id, sample_id, repeat),
        )
        return tuple(schema.row_completion(row) for row in rows)

    @bordered
    def tool_results(self, task_id: str, sample_id: str, repeat: int) -> tuple[ToolResult, ...]:
        """Return what tools gave back in one try, in the order in which it was stored."""
        if self._version < schema.VERSION_OF_TRIES:
            return ()
        rows = self._db.execute(
            "SELECT step, tool, arguments, result FROM tool_results "
            "WHERE task_id = ? AND sample_id = ? AND repeat = ? ORDER BY id",
            (task_id, sample_id, repeat),
        )
        return tuple(
            ToolResult(
                step=step,
                tool=tool,
                arguments=schema.unpack_text(arguments),
                result=schema.unpack_text(result),
            )
            for step, tool, arguments, result in rows
        )

    @bordered
    def has_completion(self, key: str) -> bool:
        """Whether a completion is stored under this key."""
        found = self._db.execute("SELECT 1 FROM completions WHERE key = ?", (key,)).fetchone()
        return found is not None

    @bordered
    def prompt(self, prompt_hash: str) -> tuple[Message, ...] | None:
        """Return a prompt; None where the store has none, as for gated tasks."""
        packed = self.packed_prompt(prompt_hash)
        return None if packed is None else schema.unpack_messages(packed)

    @bordered
    def packed_prompt(self, prompt_hash: str) -> bytes | None:
        """Return a prompt still packed; None where the store has none."""
        row = self._db.execute(
            "SELECT messages FROM prompts WHERE prompt_hash = ?", (prompt_hash,)
        ).fetchone()
        return None if row is None else row[0]

    @bordered
    def failed(self, task_id: str) -> dict[tuple[str, int], str]:
        """Return the newest error of each (sample, repeat) that failed and has no completion.

        Refused ones, which can never succeed, are left out.
        """
        newest = self._newest_attempts(task_id)
        return {place: error for place, (error, refused) in newest.items() if not refused}

    @bordered
    def refused(self, task_id: str) -> dict[tuple[str, int], str]:
        """Return the error of each (sample, repeat) without a completion that was refused last."""
        newest = self._newest_attempts(task_id)
        return {place: error for place, (error, refused) in newest.items() if refused}

    @bordered
    def _newest_attempts(self, task_id: str) -> dict[tuple[str, int], tuple[str, bool]]:
        added = ", ".join(
            self._columns.added("attempts", name, "a") for name in ("refused", "row_hash")
        )
        rows = self._db.execute(
            f"SELECT key, task_id, sample_id, repeat, error, at, {added} FROM attempts a "
            f"WHERE task_id = ? AND NOT EXISTS (SELECT 1 FROM answers c WHERE {_SAME_TRY}) "
            "ORDER BY id",
            (task_id,),
        )
        found = {}
        for *values, stored_hash in rows:
            _, _, sample_id, repeat, error, _, is_refused = values
            kinds = (str, str, str, int, str, float, int)
            check_row(values, stored_hash, kinds, f"an attempt at {sample_id!r}/{repeat!r}")
            found[sample_id, repeat] = error, bool(is_refused)
        return found

    @bordered
    def finish_words(self, task_id: str) -> dict[str, int]:
        """Return how often completions ended with a word that stands in no table, by word."""
        word = self._columns.added("completions", "finish_word", "c")
        rows = self._db.execute(
            f"SELECT {word}, COUNT(*) FROM completions c WHERE task_id = ? AND {word} IS NOT NULL "
            "GROUP BY 1 ORDER BY 1",
            (task_id,),
        )
        return dict(rows.fetchall())

    @bordered
    def sessions(self) -> list[dict[str, float]]:
        """Return start, end and counts of each session that generated, in order."""
        names = ("started_at", "ended_at", "completions", "completion_tokens")
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM sessions ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in rows]


_SAME_TRY = "a.task_id = c.task_id AND a.sample_id = c.sample_id AND a.repeat = c.repeat"


def find_run(name: str, runs_dir: Path) -> Path:
    """Return the folder of a run given by path or by id; raises UsageError for neither."""
    for folder in (Path(name), runs_dir / name):
        if (folder / DATABASE).is_file():
            return folder
    known = [p.parent.name for p in runs_dir.glob(f"*/{DATABASE}")]
    raise UsageError(f"{name!r} is not a run", where=runs_dir, hint=nearest(name, known))
