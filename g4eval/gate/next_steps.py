"""What to run next where a decision lacks data: commands, for people and for scripts."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from g4eval.gate.arm import Arm
from g4eval.gate.schedule import Round


def missing_commands(rounds: Sequence[Round], arms: Sequence[Arm]) -> list[str]:
    """Return the commands that bring runs to the end of a plan; none for what is there.

    A gate file names its run; the command belongs where that run is.
    """
    commands = []
    for arm in arms:
        lacking = {
            task: end
            for task, (_, end) in rounds[-1].repeats.items()
            if arm.tasks[task].n_repeats < end
        }
        if lacking:
            folder = arm.folder or Path("RUNS", arm.run_id)
            command = ["g4eval", "run", "--from", str(folder / "manifest.json")]
            command += ["--runs-dir", str(folder.parent), "--run-id", folder.name]
            for task, end in lacking.items():
                command += ["--set", f"{task}.repeats={end}"]
            commands.append(shlex.join(command))
    return commands
