"""What to run next where a decision lacks data, or arms aren't comparable: commands and advice."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from g4eval.engines.base import UNKNOWN
from g4eval.gating.arm import Arm
from g4eval.gating.schedule import Round


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


def again_commands(base: Arm) -> list[str]:
    """Return the command of a new decision, where one has spent its alpha: another candidate."""
    run = base.folder or Path("RUNS", base.run_id)
    return [shlex.join(["g4eval", "gate", str(run), "--run-id", "NEW", "--seed", "NEW_SEED"])]


def grading_commands(base: Arm, candidate: Arm, tasks: Sequence[str]) -> list[str]:
    """Return the commands after which both arms were graded by the same graders; none: they were.

    The arm behind is the one with the older version of a grader. A gate file holds grades only, so
    its run is graded where it is, and exported again.
    """
    arms = {id(arm): arm for task in tasks for arm in _behind(task, base, candidate)}
    commands = []
    for arm in arms.values():
        folder = str(arm.folder or Path("RUNS", arm.run_id))
        commands.append(shlex.join(["g4eval", "grade", folder]))
        if arm.folder is None:
            commands.append(
                shlex.join(["g4eval", "export", folder, "--to", "gate", "--out", "FILE"])
            )
    return commands


def _behind(task: str, base: Arm, candidate: Arm) -> list[Arm]:
    """Return the arms that have grades by an older version than the newest in either."""
    versions = [_versions(arm.tasks[task].protocol.get("grader")) for arm in (base, candidate)]
    if versions[0].keys() != versions[1].keys():  # other graders: no version is older
        return []
    newest = {name: max(found[name][-1] for found in versions) for name in versions[0]}
    return [
        arm
        for arm, found in zip((base, candidate), versions, strict=True)
        if any(found[name] != [newest[name]] for name in found)
    ]


def _versions(graders: object) -> dict[str, list[int]]:
    """`["integer 1", "integer 2"]` -> {"integer": [1, 2]}."""
    found: dict[str, list[int]] = {}
    for text in graders if isinstance(graders, list | tuple) else ():
        name, _, version = str(text).rpartition(" ")
        if version.isdigit():
            found[name] = sorted({*found.get(name, ()), int(version)})
    return found


def declaring_advice(field: str, base: Arm, candidate: Arm) -> str:
    """Say how a fact that only one arm knows is declared for the other; "" where both know it."""
    name, _, inner = field.partition(".")
    unknown = [
        (role, arm)
        for role, arm in (("baseline", base), ("candidate", candidate))
        if not inner and arm.facts.get(name, UNKNOWN) == UNKNOWN
    ]
    if len(unknown) != 1 or name not in {**base.facts, **candidate.facts}:
        return ""
    role, arm = unknown[0]
    verb = "import" if arm.facts.get("engine") == "import" else "run"
    return (
        f" (if you know the {role}'s, declare it: `g4eval {verb} ... --set engine.{name}=VALUE` "
        "makes a run that says so)"
    )
