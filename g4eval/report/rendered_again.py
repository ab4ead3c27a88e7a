"""The prompt of a gated task, which no run stores, rendered again from the task's data."""

from pathlib import Path

from g4eval.errors import G4EvalError
from g4eval.fingerprint import prompt_hash
from g4eval.records import Chat, Message
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import get_tasks


def render_again(
    hashed: str,
    *,
    task_id: str,
    variant: str,
    sample_id: str,
    repeat: int,
    data_dir: Path,
    tasks_dir: Path | None = None,
) -> tuple[Message, ...] | None:
    """Return the prompt whose hash a run stores; None: the data isn't here, or gives another."""
    try:
        (task,) = get_tasks((task_id,), tasks_dir)
        samples = load_samples(task, data_dir, allow_partial=True).samples
        sample = next((s for s in samples if s.sample_id == sample_id), None)
        if sample is None or variant not in task.spec.prompts:
            return None
        messages = task.messages(sample, repeat, variant=variant)
    except G4EvalError:
        return None
    return messages if prompt_hash(Chat(messages)) == hashed else None
