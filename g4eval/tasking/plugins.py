"""A family's plugin.py: import it, and call its hooks so that what goes wrong is its own mistake.

Ours, in the package, is trusted and runs in this process. A third party's is imported once in a
worker first (worker.py), so that one that hangs or leaves the process is told; in this process each
call of it maps whatever it raises, and whatever it returns that isn't asked for, to a TaskError
with file and line. What it prints goes to stderr: stdout is data.
"""

import asyncio
import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from types import ModuleType
from typing import Any

from g4eval.bundled import bundled_dir
from g4eval.errors import G4EvalError, TaskError
from g4eval.interrupts import was_interrupted
from g4eval.records import Sample
from g4eval.tasking.dialogue import Ask, Dialogue
from g4eval.tasking.spec import TaskSpec
from g4eval.tasking.worker import IdleError, in_worker

_SHOWN = 300  # characters of what a plugin raised
_HINT = "this is the task family's own code: mend it there"


def is_ours(folder: Path) -> bool:
    """Whether a family is one of the package's own."""
    # Asked for each row and prompt; to resolve a path asks the file system for each part of it.
    return _is_ours(folder, None if folder.is_absolute() else Path.cwd())


@lru_cache(maxsize=256)
def _is_ours(folder: Path, _from: Path | None) -> bool:
    return folder.resolve().is_relative_to(bundled_dir("tasks").resolve())


def load_plugin(path: Path) -> ModuleType:
    """Import a family's plugin.py by its path, once a process.

    Raises TaskError, with the plugin's line, whatever its import does.
    """
    name = f"g4eval_plugin_{path.parent.name}_{abs(hash(path.resolve()))}"
    if name in sys.modules:
        return sys.modules[name]
    if is_ours(path) or parent_process() is not None:  # a grader's worker is one already
        return _imported(name, path)

    def blame(error: BaseException) -> TaskError:
        return plugin_error(error, path, "can't be imported:")

    def import_once(_progress: object) -> None:
        _imported(name, path)

    in_worker(import_once, blame=blame, where=path)
    with guarded(blame):
        return _imported(name, path)


def call_hook(
    function: Callable[..., Any], spec: TaskSpec, folder: Path, args: tuple[Any, ...]
) -> Any:
    """Call a plugin's function; raises TaskError, with its line, for whatever it raises."""
    if is_ours(folder):
        try:
            return function(*args)
        except G4EvalError:
            raise
        except Exception as error:  # noqa: BLE001  raised again, blamed on the plugin
            blamed = hook_error(error, function, spec)
            # What a gated task's plugin raises may quote a question.
            raise blamed from (None if spec.gated else error)
    with guarded(lambda error: hook_error(error, function, spec), quote=not spec.gated):
        return function(*args)


@contextlib.contextmanager
def guarded(blame: Callable[[BaseException], TaskError], *, quote: bool = True) -> Any:
    """Run a third party's code in this process: its exits, output and forks are its own mistakes.

    A KeyboardInterrupt too, unless a signal has come: that one is the user's.
    """
    me = os.getpid()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except G4EvalError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and was_interrupted():
            raise
        raise blame(error) from (error if quote else None)
    finally:
        if os.getpid() != me:
            os._exit(1)  # a process that it forked goes no further than its hook


@dataclass(frozen=True, slots=True)
class GuardedDialogue:
    """A plugin's dialogue: what it raises is its own mistake, told with its line."""

    dialogue: Dialogue
    spec: TaskSpec

    async def run(self, sample: Sample, repeat: int, ask: Ask) -> None:
        """Run it; raises TaskError for a bug of its own, and what `ask` raised as it is."""
        try:
            await self.dialogue.run(sample, repeat, ask)
        except (G4EvalError, asyncio.CancelledError):
            raise
        except BaseException as error:
            known = error.subgroup(G4EvalError) if isinstance(error, BaseExceptionGroup) else None
            if known is not None:  # of a TaskGroup: the first one stopped the others
                raise _first_of(known) from error
            if isinstance(error, KeyboardInterrupt) and was_interrupted():
                raise
            blamed = hook_error(error, type(self.dialogue).run, self.spec)
            raise blamed from (None if self.spec.gated else error)


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def hook_error(error: BaseException, function: Callable[..., Any], spec: TaskSpec) -> TaskError:
    """Blame a hook for what it raised."""
    name = getattr(function, "__name__", "a hook")
    path = _file_of(function) or Path("plugin.py")
    return plugin_error(error, path, f"{name} of task {spec.id!r} raised", quote=not spec.gated)


def wrong_result(function: Callable[..., Any], spec: TaskSpec, what: str) -> TaskError:
    """Blame a hook for what it returned: `what` goes on from "returned"."""
    name = getattr(function, "__name__", "a hook")
    code = getattr(function, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else _file_of(function)
    return TaskError(
        f"the plugin {name} of task {spec.id!r} returned {what}", where=where, hint=_HINT
    )


def plugin_error(error: BaseException, path: Path, what: str, *, quote: bool = True) -> TaskError:
    """Blame the plugin and name its own line."""
    # A relative --tasks-dir is absolute in a traceback.
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    where = f"{path}:{lines[-1]}" if lines and lines[-1] else str(path)
    if isinstance(error, IdleError):
        kind = str(error)
    else:
        said = f": {error}"[:_SHOWN] if quote and str(error) else ""
        kind = f"{type(error).__name__}{said}"
    return TaskError(f"the plugin {what} {kind}", where=where, hint=_HINT)


def _file_of(function: Callable[..., Any]) -> Path | None:
    code = getattr(function, "__code__", None)
    return None if code is None else Path(code.co_filename)


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)  # a family's folder is data: nothing is written into it
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, Exception):
            raise plugin_error(error, path, "can't be imported:") from error
        raise
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module
