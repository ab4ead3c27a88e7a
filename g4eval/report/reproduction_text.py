"""Reproductions as lines of text and as JSON: what `g4eval run` and `g4eval show` print."""

from collections.abc import Sequence
from typing import Any

from g4eval.records import Interval
from g4eval.report.diagnosis import diagnose
from g4eval.report.reproduction import Reproduction, ReproductionResult, families


def render_reproductions(results: Sequence[ReproductionResult]) -> str:
    """Return a paragraph a task whose model has a published score; empty without any."""
    lines = []
    for result in results:
        if result.published is None:
            continue
        lines.append(f"{result.measurement.benchmark}: {result.verdict.upper()}")
        lines.append(f"  {result.statement}")
        if result.verdict is not Reproduction.CONSISTENT:
            lines += [
                f"  - {cause.name}: {cause.evidence}; {cause.advice}" for cause in diagnose(result)
            ]
    together = families(results)
    if together is not None:
        lines.append(together)
    return "\n".join(["against published scores", *lines, ""]) if lines else ""


def reproduction_json(result: ReproductionResult) -> dict[str, Any]:
    """Return one reproduction for machines; fractions, not percentages."""
    published, protocol = result.published, result.protocol
    return {
        "benchmark": result.measurement.benchmark,
        "verdict": result.verdict.value,
        "statement": result.statement,
        "published": None if published is None else published.value,
        "published_source": None if published is None else published.source_id,
        "published_interval": _pair(result.published_interval),
        "protocol_is_inferred": None if protocol is None else protocol.inferred,
        "difference_interval": _pair(result.difference),
        "reasons": list(result.reasons),
        "settings_that_differ": [pair.name for pair in result.settings if pair.differs],
        "causes": [
            {"name": cause.name, "evidence": cause.evidence, "advice": cause.advice}
            for cause in diagnose(result)
        ],
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
