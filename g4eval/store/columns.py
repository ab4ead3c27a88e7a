"""Which columns a run's tables have, and what readers select of them."""

import sqlite3

from g4eval.store import schema


class Columns:
    """The columns of one run; an older one lacks some, whose rows read as a stated value."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._there = {table: schema.columns_of(db, table) for table in schema.ADDED}

    def added(self, table: str, name: str, alias: str) -> str:
        """Return SQL for a column that came later: itself, or what an older run's rows read as."""
        if name in self._there[table]:
            return f"{alias}.{name}"
        return schema.ADDED[table][name][1]

    def completion(self) -> str:
        """Return what `schema.row_completion` reads, of completions c."""
        names = ("finish_word", "model", "rest_hash", "step", "logprobs", "is_greedy")
        added = (self.added("completions", name, "c") for name in names)
        return ", ".join([schema.COMPLETION_COLUMNS, "c.text_hash", *added])

    def hashed_completion(self) -> str:
        """Return what a completion's hash is over, and the hash, of completions c."""
        names = schema.HASHED_OF_A_COMPLETION.split(", ")
        added = schema.ADDED["completions"]
        columns = [self.added("completions", n, "c") if n in added else f"c.{n}" for n in names]
        columns[names.index("step")] = f"NULLIF({self.added('completions', 'step', 'c')}, 0)"
        return ", ".join([*columns, self.added("completions", "row_hash", "c")])

    def hashed_grade(self) -> str:
        """Return a grade's columns, its time and its hash, of grades g."""
        columns = [f"g.{name}" for name in schema.GRADE_COLUMNS.split(", ")]
        return ", ".join([*columns, "g.graded_at", self.added("grades", "row_hash", "g")])
