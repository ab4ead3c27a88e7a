"""What one run asks of one engine: tasks, their samples and repeats; and which tries are left.

Made by planning.py, read by the pipeline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from g4eval.config import SamplingParams
from g4eval.graders.pool import GradedTask, GraderRef
from g4eval.records import Sample
from g4eval.store.reader import RunReader
from g4eval.tasking.datasets import TaskData
from g4eval.tasking.dialogue import Dialogue
from g4eval.tasking.loader import Task
from g4eval.withholding import Withholding


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What one run asks of one task."""

    task: Task
    data: TaskData
    samples: tuple[Sample, ...]  # what TASK.* settings and then `--limit` leave
    n_selected: int  # how many there were before `--limit`
    repeats: int  # of a sample, at most
    prompt: str  # the variant
    sampling: SamplingParams
    settings: Mapping[str, Any] = field(default_factory=dict)  # the task's own
    is_uneven: bool = False  # samples have fewer repeats each, as a gate laid them out
    is_graded: bool = True  # False: nothing here can judge it, and that was asked for

    @property
    def dialogue(self) -> Dialogue:
        """What is asked in each of its tries."""
        return self.task.dialogue(self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What one run asks of one engine."""

    tasks: tuple[TaskPlan, ...]
    seed: int
    engine_fingerprint: str
    retry_refused: bool = False  # send again what was refused


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTry:
    """One sample and one repeat of a plan."""

    plan: RunPlan
    task_plan: TaskPlan
    sample: Sample
    repeat: int
    dialogue: Dialogue
    is_begun: bool = False  # a step of it is stored


def planned_tries(task_plan: TaskPlan, plan: RunPlan) -> Iterator[PlannedTry]:
    """Yield a task's tries sample by sample, so that an engine can share their prefixes."""
    dialogue = task_plan.dialogue
    for sample in task_plan.samples:
        for repeat in range(task_plan.repeats):
            yield PlannedTry(
                plan=plan, task_plan=task_plan, sample=sample, repeat=repeat, dialogue=dialogue
            )


def unfinished_tries(plan: RunPlan, store: RunReader) -> Iterator[PlannedTry]:
    """Yield, lazily, the tries that have not come to their end and may do so."""
    for task_plan in plan.tasks:
        task_id = task_plan.task.spec.id
        done, begun = tries_to_leave_out(task_id, plan, store), store.begun_tries(task_id)
        for planned in planned_tries(task_plan, plan):
            place = planned.sample.sample_id, planned.repeat
            if place not in done:
                yield planned if place not in begun else replace(planned, is_begun=True)


def tries_to_leave_out(task_id: str, plan: RunPlan, store: RunReader) -> set[tuple[str, int]]:
    """Return the (sample, repeat) pairs of a task that aren't run: ended, or refused for good."""
    finished = store.finished_tries(task_id)
    return finished if plan.retry_refused else finished | store.refused(task_id).keys()


def withholding_of(plan: RunPlan) -> Withholding:
    """Return what keeps the questions of the plan's gated tasks out of errors."""
    return Withholding({p.task.spec.id: p.samples for p in plan.tasks if p.task.spec.gated})


def graded_tasks(plan: RunPlan) -> list[GradedTask]:
    """Return what the pool of graders must know of the plan's tasks: all samples it may meet."""
    return [
        GradedTask(p.task.spec.id, GraderRef.of(p.task), {s.sample_id: s for s in p.data.samples})
        for p in plan.tasks
        if p.is_graded
    ]
