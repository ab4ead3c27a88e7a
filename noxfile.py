"""All automation. `nox` alone runs lint, typing, tests, imports and package; the rest by name."""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typing", "tests", "imports", "package"]
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).resolve().parent
PYTHONS = ["3.11", "3.12", "3.13"]
CODE = ["g4eval", "tasks", "sandboxes", "reports", "tests", "benchmarks", "noxfile.py"]
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")["dependency-groups"]
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
    """Run the unit, contract and golden tests on each Python that is here."""
    session.install("-e", ".[data,report]", *GROUPS["test"])
    _pytest(session, "tests", *session.posargs)


@nox.session(python="3.11")
def slow(session: nox.Session) -> None:
    """Run the tests that take over 5 s each, simulations and 200 kills included."""
    session.install("-e", ".[report]", *GROUPS["test"])
    _pytest(session, "tests", "-m", "slow and not (docker or gpu or network)", *session.posargs)


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
    """Run the tests on the lowest dependencies that pyproject.toml allows."""
    session.install("uv")
    session.run(
        "uv",
        "pip",
        "install",
        "--resolution",
        "lowest-direct",
        "-e",
        ".",
        *GROUPS["test"],
        "--python",
        str(Path(session.bin) / "python"),
    )
    _pytest(session, "tests", *session.posargs)


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


def _pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest, measuring coverage into a file of the session's own."""
    env = {"COVERAGE_FILE": str(ROOT / f".coverage.{session.name}")}
    if "G4EVAL_DATA_DIR" in os.environ:
        env["G4EVAL_DATA_DIR"] = os.environ["G4EVAL_DATA_DIR"]
    session.run("pytest", "--cov", "--cov-report=", *arguments, env=env)


if __name__ == "__main__":
    sys.exit("run this with nox")
