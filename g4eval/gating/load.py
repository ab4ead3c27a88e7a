"""Read an arm from where it is: a run folder, a run's id, or a gate file."""

from collections.abc import Iterator
from pathlib import Path

from g4eval.fingerprint import sha256_json
from g4eval.gating.arm import NEVER_AS, Arm, ArmTask, TryRecord, build_task
from g4eval.gating.copies import LONG_TOKENS
from g4eval.gating.gate_file import read_gate_file
from g4eval.gating.signals import Signals, read_signals
from g4eval.records import Outcome, StopReason, Thought
from g4eval.store.reader import RunReader, find_run
from g4eval.store.stored import StoredPlan
from g4eval.store.verdicts import Calibration

CALIBRATION = "calibration.json"
# What must be equal between two arms, of what the store keeps of a task's plan.
PROTOCOL = ("version", "prompt", "settings", "text_sha256", "is_generated")
CHARACTERS_A_TOKEN = 4  # about, where nobody counted tokens
OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def load_arm(name: str, runs_dir: Path) -> Arm:
    """Return the arm of a gate file, a run folder or a run id; raises UsageError for neither."""
    path = Path(name)
    if path.is_file():
        return read_gate_file(path)
    return arm_of_run(find_run(name, runs_dir))


def arm_of_run(folder: Path) -> Arm:
    """Return the arm of a run folder."""
    with RunReader(folder) as run:
        manifest = run.manifest()
        plans = run.tasks()
        signals = read_signals(run)
        never_as = manifest.config.get("never_as")
        tasks = {
            task_id: _task_of(run, task_id, plan, signals, never_as)
            for task_id, plan in plans.items()
        }
        run_id = run.run_id
    generated = all(plan.is_generated for plan in plans.values())
    return Arm(
        run_id=run_id,
        seed=manifest.identity.seed if generated else None,
        facts=manifest.engine.facts,
        declared=manifest.engine_declared,
        tasks=tasks,
        config=manifest.config,
        folder=folder,
        calibration=read_calibration(folder),
    )


def read_calibration(folder: Path) -> Calibration | None:
    """Return the calibration stored beside a baseline run; None: there is none."""
    path = folder / CALIBRATION
    return Calibration.read(path) if path.exists() else None


def _task_of(
    run: RunReader, task_id: str, plan: StoredPlan, signals: Signals, never_as: object
) -> ArmTask:
    subtask = next(iter(plan.splits), "")
    samples = {s.sample_id: s.groups.get(subtask, "") for s in run.samples(task_id)}
    graders: set[str] = set()
    tries = list(_tries(run, task_id, graders, signals))
    questions = _questions(run, tries)
    stored = plan.as_json()
    protocol = {key: stored.get(key) for key in PROTOCOL}
    protocol["grader"] = sorted(graders) or [
        f"{plan.grader_name or plan.grader} {plan.grader_version}"
    ]
    if plan.is_generated:
        protocol.update({f"sampling.{k}": v for k, v in plan.sampling.as_json().items()})
    if never_as is not None:
        protocol[NEVER_AS] = never_as
    return build_task(protocol, samples, tries, questions)


def _tries(
    run: RunReader, task_id: str, graders: set[str], signals: Signals
) -> Iterator[TryRecord]:
    for (
        sample_id, repeat, outcome, stop_reason, thought, tokens, prompt_hash, grader, version,
        text_hash, row,
    ) in run.outcome_rows(task_id):  # fmt: skip
        if grader is not None:
            graders.add(f"{grader} {version}")
        yield TryRecord(
            sample_id=sample_id,
            repeat=repeat,
            outcome=OUTCOMES[outcome] if outcome else Outcome.UNGRADED,
            truncated=stop_reason == StopReason.LENGTH,
            open_thought=thought == Thought.OPEN,
            looping=signals.looping(row),
            other_script=signals.other_script(row),
            tokens=tokens,
            prompt_hash=prompt_hash,
            text_hash=text_hash,
            is_long=tokens >= LONG_TOKENS
            if tokens is not None
            else run.text_characters(row) >= LONG_TOKENS * CHARACTERS_A_TOKEN,
        )
    for sample_id, repeat in run.refused(task_id):
        yield TryRecord(sample_id=sample_id, repeat=repeat, outcome=Outcome.UNGRADED, refused=True)
    for sample_id, repeat in run.failed(task_id):
        yield TryRecord(sample_id=sample_id, repeat=repeat, outcome=Outcome.UNGRADED)


def _questions(run: RunReader, tries: list[TryRecord]) -> dict[str, str]:
    """Return a hash of each sample's question: its first prompt, white space made one space.

    A gated task's prompt isn't stored, so there it is the hash of the prompt as it was sent.
    """
    found: dict[str, str] = {}
    for one in sorted(tries, key=lambda t: t.repeat):
        if one.prompt_hash is None or one.sample_id in found:
            continue
        messages = run.prompt(one.prompt_hash)
        found[one.sample_id] = (
            one.prompt_hash
            if messages is None
            else sha256_json([[m.role, " ".join(m.content.split())] for m in messages])
        )
    return found
