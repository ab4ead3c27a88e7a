"""A run's completions and grades as JSON lines or Parquet, one (sample, repeat) a row."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from g4eval.errors import MissingExtraError
from g4eval.jsonlines import write_json_lines
from g4eval.output import replacing
from g4eval.records import Outcome
from g4eval.store.reader import RunReader

ROWS_PER_GROUP = 1024
REFUSED = "refused"  # stands for a stop reason where no answer can ever come
COLUMNS = (
    "task",
    "sample_id",
    "repeat",
    "outcome",
    "extraction",
    "lenient_extraction",
    "verdict",
    "stop_reason",
    "text",
    "reasoning",
    "prompt_tokens",
    "completion_tokens",
)


def export_rows(run: RunReader, *, include_gated: bool) -> Iterator[dict[str, Any]]:
    """Yield a row a completion, by task, sample and repeat, then those refused for good.

    Gated texts are None unless asked.
    """
    for task_id, plan in run.tasks().items():
        shown = include_gated or not plan.gated
        texts = run.completions(task_id)
        for row, completion in zip(run.rows(task_id), texts, strict=True):
            assert row.key == completion.key
            grade = row.grade
            values = (
                task_id,
                row.sample_id,
                row.repeat,
                row.outcome.value,
                grade.extraction if grade else None,
                grade.lenient_extraction if grade else None,
                grade.verdict if grade else None,
                row.stop_reason.value,
                completion.text if shown else None,
                completion.reasoning if shown else None,
                row.prompt_tokens,
                row.completion_tokens,
            )
            yield dict(zip(COLUMNS, values, strict=True))
        for sample_id, repeat in sorted(run.refused(task_id)):
            empty = dict.fromkeys(COLUMNS)
            yield {
                **empty,
                "task": task_id,
                "sample_id": sample_id,
                "repeat": repeat,
                "outcome": Outcome.UNGRADED.value,
                "stop_reason": REFUSED,
            }


def export_json_lines(run: RunReader, stream: IO[str], *, include_gated: bool) -> None:
    """Write the rows to a text stream."""
    write_json_lines(stream, export_rows(run, include_gated=include_gated))


def export_parquet(run: RunReader, path: Path, *, include_gated: bool) -> None:
    """Write the rows to a Parquet file, group by group; raises MissingExtraError, StoreError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow, which is not installed", hint="pip install 'g4eval[report]'"
        ) from error
    numbers = {"repeat", "prompt_tokens", "completion_tokens"}
    rows = export_rows(run, include_gated=include_gated)
    schema = pa.schema([(n, pa.int64() if n in numbers else pa.string()) for n in COLUMNS])
    with replacing(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        while group := [_valid(row) for row in islice(rows, ROWS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _valid(row: dict[str, Any]) -> dict[str, Any]:
    """Parquet's strings are UTF-8, which can't hold lone surrogates."""
    return {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }
