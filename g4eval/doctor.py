"""What is on this machine of all that g4eval can use, and how to get what isn't.

Nothing is loaded, generated or sent: packages are asked for their version, data is read and
checked, Docker is asked whether it answers.
"""

import os
import platform
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from g4eval.errors import G4EvalError, NotReadyError
from g4eval.profile import all_profiles
from g4eval.sandbox.docker_pool import connect
from g4eval.sandbox.image import build_image, image_exists, image_tag
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import Task, find_tasks

State = Literal["ok", "partial", "missing"]
FREE_BYTES_WANTED = 2 << 30  # a night's run of all four benchmarks stays well below
_EXTRA = re.compile(r"""^([A-Za-z0-9._-]+).*extra\s*==\s*['"]([\w-]+)['"]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked for."""

    area: str  # python, package, gpu, docker, data, hub, weights, disk
    name: str
    state: State
    detail: str = ""
    hint: str = ""  # how to get it; "" where nothing is to be done


def examine(*, data_dir: Path | None, tasks_dir: Path | None, runs_dir: Path) -> list[Finding]:
    """Look at everything."""
    return [
        _python(),
        *_packages(),
        _gpu(),
        *_docker(),
        *_data(data_dir, tasks_dir),
        _hub_token(),
        *_weights(),
        _disk(runs_dir),
    ]


def build_sandbox(say: Callable[[str], None]) -> str:
    """Build the judge's image and return its tag; raises NotReadyError where that can't be done."""
    with closing(connect()) as client:
        return build_image(client, say=say)


def _python() -> Finding:
    here = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() == "Windows":
        hint = "use WSL: the judge and file locks need a Unix"
        return Finding(area="python", name="python", state="missing", detail=here, hint=hint)
    return Finding(area="python", name="python", state="ok", detail=here)


def _packages() -> Iterator[Finding]:
    """Yield one finding an extra of g4eval's own metadata."""
    names: dict[str, list[str]] = defaultdict(list)
    for requirement in requires("g4eval") or ():
        if match := _EXTRA.match(requirement):
            names[match[2]].append(match[1])
    for extra, packages in sorted(names.items()):
        found = {package: _version(package) for package in packages}
        absent = [package for package, there in found.items() if there is None]
        detail = ", ".join(f"{p} {v}" for p, v in found.items() if v is not None)
        state: State = "ok" if not absent else "partial" if detail else "missing"
        hint = f"pip install 'g4eval[{extra}]' (lacks {', '.join(absent)})" if absent else ""
        yield Finding(area="package", name=extra, state=state, detail=detail, hint=hint)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    command = [program or "", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            command, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        hint = "only for engines vllm and gemma on CUDA; a server or the CPU need none"
        return Finding(area="gpu", name="cuda", state="missing", hint=hint)
    cards = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return Finding(area="gpu", name="cuda", state="ok", detail="; ".join(cards))


def _docker() -> Iterator[Finding]:
    try:
        client = connect()
    except NotReadyError as error:
        yield Finding(
            area="docker", name="daemon", state="missing", hint=f"{error.hint}; {error.what}"
        )
        return
    with closing(client):
        server = client.version().get("Version", "")
        yield Finding(area="docker", name="daemon", state="ok", detail=server)
        there = image_exists(client)
        yield Finding(
            area="docker",
            name="judge image",
            state="ok" if there else "missing",
            detail=image_tag(),
            hint="" if there else "g4eval doctor --build-sandbox",
        )


def _data(data_dir: Path | None, tasks_dir: Path | None) -> Iterator[Finding]:
    for task_id, task in find_tasks(tasks_dir).items():
        if not task.spec.invented:
            yield _task_data(task_id, _without_hub(task), data_dir)


def _without_hub(task: Task) -> Task:
    """Return the task with the sources that need no network."""
    sources = tuple(s for s in task.spec.data.sources if s.kind != "hub")
    data = task.spec.data.model_copy(update={"sources": sources})
    spec = task.spec.model_copy(update={"data": data})
    return Task(spec, task.folder, task.plugin)


def _task_data(task_id: str, task: Task, data_dir: Path | None) -> Finding:
    try:
        data = load_samples(task, data_dir, allow_partial=True)
    except G4EvalError as error:
        hint = task.spec.data.hint or error.hint or ""
        what = error.what.split("\n", maxsplit=1)[0].rstrip(":")
        return Finding(area="data", name=task_id, state="missing", detail=what, hint=hint)
    count = f"{len(data.samples):,} of {data.rows_stated:,} rows, text {data.text}"
    if data.is_partial:
        hint = task.spec.data.hint or ""
        if any(source.path and source.path in hint for source in task.spec.data.sources):
            # It asks for a file that is there: what is lacking is another one, with more in it.
            hint = f"{data.source} is here; all of it is on the hub: pip install 'g4eval[data]'"
        lacks = f"; it has {data.incomplete}" if data.incomplete else ""
        return Finding(area="data", name=task_id, state="partial", detail=count + lacks, hint=hint)
    return Finding(area="data", name=task_id, state="ok", detail=count)


def _hub_home() -> Path:
    return Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))


def _hub_token() -> Finding:
    """Say whether there is a token; what it is stays unread."""
    if os.environ.get("HF_TOKEN") or (_hub_home() / "token").is_file():
        return Finding(area="hub", name="token", state="ok", detail="set")
    hint = "only for gated sets and models: set HF_TOKEN"
    return Finding(area="hub", name="token", state="missing", hint=hint)


def _weights() -> Iterator[Finding]:
    cache = Path(os.environ.get("HF_HUB_CACHE", _hub_home() / "hub"))
    for name, profile in all_profiles().items():
        if profile.hub_id is None:
            continue
        snapshots = cache / f"models--{profile.hub_id.replace('/', '--')}" / "snapshots"
        there = snapshots.is_dir() and any(snapshots.iterdir())
        yield Finding(
            area="weights",
            name=name,
            state="ok" if there else "missing",
            detail=profile.hub_id,
            hint="" if there else f"hf download {profile.hub_id}, or give a folder with --model",
        )


def _disk(runs_dir: Path) -> Finding:
    place = runs_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / (1 << 30):,.0f} GiB free at {runs_dir}"
    if not os.access(place, os.W_OK):
        hint = "give a folder that can be written with --runs-dir"
        return Finding(area="disk", name="runs", state="missing", detail=detail, hint=hint)
    if free < FREE_BYTES_WANTED:
        hint = "make room, or give another folder with --runs-dir"
        return Finding(area="disk", name="runs", state="partial", detail=detail, hint=hint)
    return Finding(area="disk", name="runs", state="ok", detail=detail)
