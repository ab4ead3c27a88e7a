"""Grade a run again from its store, and tell what changed. Grades are added, none is changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from g4eval import interrupts
from g4eval.errors import ConfigError, DataError
from g4eval.graders.pool import GradedTask, GraderPool, GraderRef
from g4eval.records import Grade, Json, Sample, StoredTry
from g4eval.store.run_store import RunStore
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import Task, get_tasks


@dataclass(frozen=True, slots=True)
class GradeChange:
    """One completion that is judged otherwise than before."""

    task_id: str
    sample_id: str
    repeat: int
    before: Grade
    after: Grade


@dataclass(slots=True)
class Regraded:
    """What came of grading a run again."""

    n_graded: int = 0
    changes: list[GradeChange] = field(default_factory=list)


def grade_run(
    folder: Path, data_dir: Path | None, tasks_dir: Path | None, *, keep: bool = True
) -> Regraded:
    """Grade every completion of a run with today's graders; return what changed.

    keep: store the new grades; else the run stays as it is.
    """
    with RunStore(folder) as store:
        tasks = get_tasks(tuple(store.tasks()), tasks_dir)
        graded = [
            GradedTask(t.spec.id, GraderRef.of(t), _samples(t, store, data_dir)) for t in tasks
        ]
        sink = _Comparison(store, keep=keep)
        interrupts.run(_grade(GraderPool(graded), sink))
        for task in tasks if keep else ():
            version = GraderRef.of(task).load().version
            plan = store.tasks()[task.spec.id].model_copy(update={"grader_version": version})
            store.set_task(task.spec.id, plan.as_json(), (), gated=task.spec.gated)
    return sink.result


async def _grade(pool: GraderPool, sink: "_Comparison") -> None:
    async with pool.saving_to(sink):
        pass  # the pool grades what the sink says is ungraded: here, everything
    await sink.flush()


class _Comparison:
    """A GradeStore that has every completion graded once more and may keep what is new."""

    def __init__(self, store: RunStore, *, keep: bool) -> None:
        self._store = store
        self._keep = keep
        self._places: dict[str, tuple[str, str, int]] = {}
        self.result = Regraded()

    async def add_grade(self, grade: Grade) -> None:
        """Note a grade that differs from the newest one, or is by another version; store it."""
        self.result.n_graded += 1
        place = self._places.pop(grade.key)
        before = self._store.grade(grade.key)
        if before == grade:
            return
        if self._keep:
            await self._store.add_grade(grade)
        if before is not None and _judgement(before) != _judgement(grade):
            self.result.changes.append(GradeChange(*place, before, grade))

    async def flush(self) -> None:
        """Wait until everything added is committed."""
        await self._store.flush()

    def note_grader(self, name: str, facts: Mapping[str, Json]) -> None:
        """Store what a grader judges with, where its grades are kept."""
        if self._keep:
            self._store.note_grader(name, facts)

    def last_row(self, task_id: str) -> int:
        """Return the row id of the task's newest completion."""
        return self._store.last_row(task_id)

    def ungraded(
        self,
        task_id: str,
        grader: str,  # noqa: ARG002  whoever graded it
        version: int,  # noqa: ARG002
        *,
        after: int,
        retry: bool,
        limit: int,
    ) -> list[tuple[int, StoredTry]]:
        """Return the next tries, graded or not, in the pool's first pass."""
        page = self._store.page(task_id, after=after, limit=limit) if retry else []
        for _, stored in page:
            last = stored.completions[-1]
            self._places[last.key] = (last.task_id, last.sample_id, last.repeat)
        return page


def _judgement(grade: Grade) -> tuple[object, ...]:
    return grade.outcome, grade.extraction, grade.verdict


def _samples(task: Task, store: RunStore, data_dir: Path | None) -> dict[str, Sample]:
    """Return the task's samples from its data; where it isn't here, what the store keeps of them.

    The store keeps targets alone, and none of a gated task: enough for graders that say so.
    Raises DataError where samples of the run are missing, ConfigError for another task version.
    """
    stored = store.samples(task.spec.id)
    version = store.tasks()[task.spec.id].version
    if version != task.spec.version:
        raise ConfigError(
            f"the run has version {version} of {task.spec.id!r}, and this is {task.spec.version}",
            where=store.folder,
            hint="grade it with the g4eval that made it, or run the task again",
        )
    try:
        data = load_samples(task, data_dir, allow_partial=True)
    except DataError:
        if task.spec.gated or not getattr(GraderRef.of(task).load(), "needs_only_targets", False):
            raise
        return {
            s.sample_id: Sample(sample_id=s.sample_id, target=s.target, groups=s.groups)
            for s in stored
        }
    samples = {sample.sample_id: sample for sample in data.samples}
    missing = [s.sample_id for s in stored if s.sample_id not in samples]
    if missing:
        raise DataError(
            f"{len(missing)} samples of the run are not in the data, first {missing[0]!r}",
            where=data.source,
            hint="give the data that the run was made with",
        )
    return samples
