"""`g4eval`: a table of commands, each imported when it is called, so that --help is quick."""

import importlib
import os
from typing import Any

import click

import g4eval
from g4eval.errors import NotReadyError, UsageError, nearest

# name -> (module of g4eval.cli, one line of help)
COMMANDS = {
    "run": ("run", "Run tasks on a model, or continue a run."),
    "import": ("import_completions", "Grade recorded completions from anywhere; makes a run."),
    "grade": ("grade", "Grade a run again from its store."),
    "show": ("show", "Print a run's table, or one sample."),
    "compare": ("compare", "Compare two runs sample by sample."),
    "gate": ("gate", "Say whether a candidate is as good as a baseline."),
    "gate-plan": ("gate_plan", "Print what a margin needs: repeats, tokens, hours."),
    "gate-calibrate": ("gate_calibrate", "Show that the gate passes a baseline against itself."),
    "drift": ("drift", "Score a baseline's recorded tokens on two engines."),
    "check": ("check", "Say whether a stored run is whole, and salvage a damaged one."),
    "export": ("export", "Write a run's completions and grades to a file."),
    "logprobs": ("logprobs", "Score given token ids with a model."),
    "judge": ("judge", "Run code jobs in the sandbox: JSON lines in, JSON lines out."),
    "tasks": ("tasks", "List the tasks that can be run."),
    "published": ("published", "List published scores with their sources."),
    "report": ("report", "Write runs as HTML pages."),
    "doctor": ("doctor", "Say what is missing on this machine and how to get it."),
}


# MiB of address space that a command needs, by trial: below it libraries end the process as they
# like. What loads engines, or starts graders, needs the most.
SPACE = {
    **dict.fromkeys(("tasks", "published"), 0),
    **dict.fromkeys(("show", "export", "ls", "check", "completion", "doctor"), 256),
    **dict.fromkeys(("report", "grade", "compare", "gate-plan"), 448),
}
MOST_SPACE = 1024


def check_room(command: str) -> None:
    """Refuse a command that can't live in the address space there is (`ulimit -v`)."""
    try:
        import resource  # noqa: PLC0415  Unix alone has it
    except ImportError:  # no Unix, no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread of it takes space for itself
    needed = SPACE.get(command, MOST_SPACE) << 20
    if limit < needed:
        raise NotReadyError(
            f"the address space is limited to {limit >> 20:,} MiB",
            where=f"g4eval {command}",
            hint=f"ulimit -v {needed >> 10} or more: it needs {needed >> 20:,} MiB",
        )


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        """Import one command."""
        if cmd_name not in COMMANDS:
            raise UsageError(f"{cmd_name!r} is not a command", hint=nearest(cmd_name, COMMANDS))
        check_room(cmd_name)
        module = importlib.import_module(f"g4eval.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  click's
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; unlike click's, this one keeps our error for an unknown name."""
        return args[0], self.get_command(ctx, args[0]), args[1:]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(g4eval.__version__, prog_name="g4eval")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(**_: Any) -> None:
    """Evaluate Gemma 4 however it is served, with honest errors.

    Exit codes: 0 done; 1 gate FAIL or not reproduced; 2 usage; 3 inconclusive; 4 not comparable;
    5 something isn't installed, running or finished; 70 a bug in g4eval; 130 interrupted.
    """
