"""A family's own grader: loaded and tried as a third party's code, its grades checked.

A grader that is missing a part, or returns no Grade on its own example, is told before anything is
generated. One that raises, exits or returns something else for a completion costs that completion
its grade, with the plugin's line as the reason.
"""

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from g4eval.errors import TaskError
from g4eval.graders.base import Grader, NamedGrader, ungraded
from g4eval.records import Completion, Grade, Outcome, Sample, StopReason, Try
from g4eval.tasking.plugins import guarded, is_ours, load_plugin, plugin_error
from g4eval.tasking.samples import json_fault
from g4eval.tasking.worker import in_worker

MAX_TEXT = 1 << 20  # characters of an extraction
MAX_NAME = 200
_PLAIN = frozenset((str, int, float, bool, type(None)))
_HINT = "this is the task family's own code: mend it there"


class Example(Protocol):
    """Makes an answer that a grader finds right, or wrong; see Grader.example."""

    def __call__(self, sample: Sample, repeat: int, *, right: bool) -> str | None:
        """Return it; None: there is none."""
        ...


def load_plugin_grader(folder: Path, class_name: str) -> Grader:
    """Return an instance of a class in a family's plugin.

    Raises TaskError, with the file, where it isn't there, isn't a grader, or can't be made.
    """
    path = folder / "plugin.py"
    if not path.is_file():
        raise TaskError(f"the grader is plugin:{class_name}, and there is no plugin", where=path)
    grader_class = getattr(load_plugin(path), class_name, None)
    if not isinstance(grader_class, type):
        what = "no class" if grader_class is None else f"{type(grader_class).__name__}, no class,"
        raise TaskError(f"the plugin has {what} {class_name!r}", where=path, hint=_HINT)

    def blame(error: BaseException) -> TaskError:
        return plugin_error(error, path, f"can't make a {class_name}:")

    with guarded(blame):
        grader = cast("Grader", grader_class())
    name, version = getattr(grader, "name", None), getattr(grader, "version", None)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise _no_grader(class_name, "name, a text", path)
    if type(version) is not int or not 1 <= version < 2**31:
        raise _no_grader(class_name, "version, a whole number from 1", path)
    if not callable(getattr(grader, "grade", None)):
        raise _no_grader(class_name, "grade(one_try)", path)
    if not _takes_a_try(grader):
        raise TaskError(
            f"{class_name}.grade doesn't take a try",
            where=path,
            hint="def grade(self, one_try): it judges one_try.completion of one_try.sample",
        )
    return grader


def _takes_a_try(grader: Grader) -> bool:
    try:
        inspect.signature(grader.grade).bind(None)
    except TypeError:
        return False
    except ValueError:  # written in C: nobody knows
        return True
    return True


def try_grader(grader: Grader, folder: Path, sample: Sample) -> None:
    """Grade one answer of its own with a third party's grader, in a worker.

    Raises TaskError where it returns no Grade, hangs or ends the process; what it raises for one
    answer is told with the grades.
    """
    path = folder / "plugin.py"
    if is_ours(folder) or inspect.iscoroutinefunction(grader.grade):
        return

    def once(_progress: object) -> str | None:
        completion = Completion(
            key="", task_id="", sample_id=sample.sample_id, repeat=0, stop_reason=StopReason.STOP,
            text=example_of(grader, sample, 0, right=True) or "",
        )  # fmt: skip
        one_try = Try(task_id="", sample=sample, repeat=0, completions=(completion,))
        try:
            grade = grader.grade(one_try)
        except Exception:  # noqa: BLE001  one answer's failure, told where it happens again
            return None
        return grade_fault(grade, grader, one_try)

    fault = in_worker(once, blame=lambda e: plugin_error(e, path, "grading raised"), where=path)
    if fault is not None:
        code = getattr(type(grader).grade, "__code__", None)
        where = f"{path}:{code.co_firstlineno}" if code is not None else path
        raise TaskError(f"the plugin's {type(grader).__name__}: {fault}", where=where, hint=_HINT)


def example_maker(grader: Grader, folder: Path | None) -> Example:
    """Return what makes a grader's examples: itself, or a third party's within `example_of`.

    `folder` is the plugin's; None for a grader of ours.
    """
    if folder is None or is_ours(folder):
        return grader.example
    return partial(example_of, grader)


def example_of(grader: Grader, sample: Sample, repeat: int, *, right: bool) -> str | None:
    """Return an example answer of a grader; None where it can't make one, or makes something else.

    Raises TaskError for what it raises.
    """
    example = getattr(grader, "example", None)
    if example is None:
        return None
    module_path = Path(getattr(getattr(example, "__code__", None), "co_filename", "plugin.py"))
    with guarded(lambda error: plugin_error(error, module_path, "example raised")):
        text = example(sample, repeat, right=right)
    if text is not None and not isinstance(text, str):
        raise TaskError(
            f"example of {type(grader).__name__} returned {type(text).__name__}, not a text",
            where=module_path,
            hint=_HINT,
        )
    return text


def checked_grade(grade: Any, grader: NamedGrader, one_try: Try) -> Grade:
    """Return a grade that can be stored; an ungraded one, with the reason, for anything else."""
    fault = grade_fault(grade, grader, one_try)
    if fault is not None:
        return ungraded(grader, one_try, fault)
    assert isinstance(grade, Grade)
    if all(type(value) in _PLAIN for value in grade.details.values()):
        return grade
    # Values of types of the plugin's own would not reach the process that stores them.
    return replace(grade, details=json.loads(json.dumps(dict(grade.details))))


def grade_fault(grade: Any, grader: NamedGrader, one_try: Try) -> str | None:
    """Return what is wrong with what a grader returned, in words; None: nothing is."""
    if type(grade) is not Grade:
        return f"the grader returned {type(grade).__name__}, not a Grade"
    facts = (grade.key, grade.grader, grade.grader_version)
    if facts != (one_try.key, grader.name, grader.version):
        return "the grade is another grader's or another completion's"
    outcomes = (grade.outcome, grade.lenient_outcome or Outcome.CORRECT)
    if not all(isinstance(outcome, Outcome) for outcome in outcomes):
        return "the grade's outcome is no Outcome"
    for text in (grade.extraction, grade.lenient_extraction, grade.verdict):
        if text is not None and (type(text) is not str or len(text) > MAX_TEXT):
            return "the grade's extraction is no text, or too long a one"
    details: Any = grade.details
    if not isinstance(details, Mapping):
        return "the grade's details are not values by name"
    fault = json_fault(dict(details)) if details else None
    return None if fault is None else f"the grade's details hold {fault}"


def leave_if_forked(pid: int) -> None:
    """End a process that a grader forked: its copy of the work is nobody's."""
    if os.getpid() != pid:
        os._exit(1)


def _no_grader(class_name: str, part: str, path: Path) -> TaskError:
    return TaskError(f"the plugin's {class_name} has no {part}", where=path, hint=_HINT)
