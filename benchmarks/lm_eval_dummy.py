"""The lm-eval side of pipeline.py: its dummy model, but with texts of a given length.

    python lm_eval_dummy.py FOLDER KILOBYTES

FOLDER holds bench_math.yaml and rows.jsonl. Prints `SECONDS n` of `simple_evaluate` with
log_samples and of writing the samples as lm-eval's own command does.
"""

import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path, kilobytes: int) -> None:
    """Run and print the seconds."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    class LongDummy(DummyLM):  # type: ignore[misc]  # lm-eval has no types
        """The dummy model with long answers; a third of them right."""

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002, FBT001, FBT002
            padding = "so " * (kilobytes * 1000 // 3)
            return [f"{padding}The answer is \\\\boxed{{{i}}}." for i, _ in enumerate(requests)]

    manager = TaskManager(include_path=str(folder))
    begun = time.monotonic()
    results = lm_eval.simple_evaluate(
        model=LongDummy(), tasks=["bench_math"], task_manager=manager, log_samples=True
    )
    assert results is not None
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name="bench_math", samples=samples["bench_math"])
    print(f"SECONDS {time.monotonic() - begun}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
