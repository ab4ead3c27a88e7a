"""What may explain that a score isn't the published one, likeliest cause first.

Causes and their sizes come from reruns that missed and were then repaired; docs/methods tells
which. Every cause here is something the stored run shows, not a guess.
"""

from collections.abc import Callable
from dataclasses import dataclass

from g4eval.report.reproduction import Measurement, Reproduction, ReproductionResult

TRUNCATED_LIMIT = 0.01
NO_ANSWER_LIMIT = 0.02
_LONG_BUDGET = 65536
_SHORT_BUDGET = 32768
_LONG_BENCHMARKS = ("aime", "livecodebench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One possible explanation."""

    name: str  # a few words
    evidence: str  # what the run shows
    advice: str


def diagnose(result: ReproductionResult) -> tuple[Cause, ...]:
    """Return what in this run may have moved the score; empty: nothing stands out."""
    if result.measurement.engine == "fake":
        return ()  # its answers are scripted: nothing moved them
    checks = _CHECKS if result.published is not None else (_truncated, _no_answer)
    found = [cause for check in checks if (cause := check(result)) is not None]
    if result.published is not None and (unknown := _unknown(result)) is not None:
        found.insert(0, unknown)
    if not found and result.verdict in (Reproduction.BELOW, Reproduction.ABOVE):
        found.append(_nothing_found(result))
    return tuple(found)


def _unknown(result: ReproductionResult) -> Cause | None:
    """What an import doesn't say comes first: any of it may be the whole difference."""
    measured = result.measurement
    names = [name.replace("_", " ") for name in measured.unknown]
    if measured.thinking == "unknown":
        names.append("thinking")
    if not measured.unknown or not names:
        return None
    return Cause(
        name="unknown settings",
        evidence=f"nobody stated {', '.join(names)}; these answers were made elsewhere",
        advice="declare what you know: g4eval import ... --set sampling.temperature=1 "
        "--set sampling.max_new_tokens=65536 --set engine.thinking=true; compare the prompt",
    )


def _thinking(result: ReproductionResult) -> Cause | None:
    measured = result.measurement
    if result.published is None or result.published.thinking is not True:
        return None
    seen = measured.share_with_thought
    if measured.thinking == "off":
        evidence = "the run was made without thinking, the published score with it"
    elif seen is not None and seen < 0.5:
        evidence = f"only {seen:.0%} of the answers hold a thought, though thinking was not off"
    else:
        return None
    return Cause(
        name="thinking off",
        evidence=evidence,
        advice="--set engine.thinking=true; Gemma 4's chat template has it off by default. On GPQA "
        "Diamond it was worth 8 points to the 31B",
    )


def _truncated(result: ReproductionResult) -> Cause | None:
    measured = result.measurement
    estimate = measured.estimate
    share = estimate.n_truncated / estimate.n_graded if estimate.n_graded else 0.0
    if share < TRUNCATED_LIMIT:
        return None
    enlarged = 2 * measured.max_new_tokens
    budget = f"{measured.max_new_tokens:,}"
    if "max_new_tokens" in measured.unknown:
        budget, enlarged = "unknown", 0
    evidence = (
        f"{share:.1%} of the answers were cut off (budget {budget} tokens); "
        f"all of them right would give {100 * estimate.if_truncated_right:.1f}"
    )
    if result.verdict is Reproduction.BELOW and result.published_interval is not None:
        enough = estimate.if_truncated_right >= result.published_interval.low
        evidence += ", enough to explain it" if enough else ", not enough to explain it"
    return Cause(
        name="truncated answers",
        evidence=evidence,
        advice=f"--set sampling.max_new_tokens={max(_budget_for(measured), enlarged)} and a "
        "context that holds it; at a large budget, look whether they repeat themselves",
    )


def _no_answer(result: ReproductionResult) -> Cause | None:
    estimate = result.measurement.estimate
    share = estimate.n_no_answer / estimate.n_graded if estimate.n_graded else 0.0
    if share < NO_ANSWER_LIMIT or estimate.n_no_answer <= estimate.n_truncated:
        return None
    return Cause(
        name="answers not found",
        evidence=f"no answer was read from {share:.1%} of the completions, cut off or not",
        advice="look at those with outcome 'no answer' in the explorer: prompt or extraction",
    )


def _template(result: ReproductionResult) -> Cause | None:
    measured = result.measurement
    known, ours = measured.known_template_hashes, measured.chat_template_hash
    if not known or ours in known or ours == "unknown":
        return None
    return Cause(
        name="unknown chat template",
        evidence=f"its hash {ours[:12]} is none of those recorded for this model",
        advice="take the template of the hub snapshot; it has changed without a version number",
    )


def _sampling(result: ReproductionResult) -> Cause | None:
    measured = result.measurement
    if (measured.temperature, measured.top_p, measured.top_k) == (1.0, 0.95, 64):
        return None
    if {"temperature", "top_p", "top_k"} & set(measured.unknown):
        return None  # said by _unknown
    greedy = "greedy decoding" if measured.temperature == 0 else "sampling"
    return Cause(
        name="other sampling",
        evidence=f"{greedy} {measured.temperature:g} / {measured.top_p:g} / {measured.top_k} "
        "instead of the recommended 1 / 0.95 / 64",
        advice="leave --set sampling.* out; greedy decoding makes Gemma 4 repeat itself",
    )


def _budget(result: ReproductionResult) -> Cause | None:
    measured = result.measurement
    wanted = _budget_for(measured)
    if measured.max_new_tokens >= wanted or measured.thinking != "on":
        return None
    if "max_new_tokens" in measured.unknown:
        return None  # said by _unknown
    return Cause(
        name="small token budget",
        evidence=f"{measured.max_new_tokens:,} tokens an answer; thoughts on this task need more",
        advice=f"--set sampling.max_new_tokens={wanted}",
    )


def _release(result: ReproductionResult) -> Cause | None:
    if not any(reason.startswith("another question set") for reason in result.reasons):
        return None
    return Cause(
        name="another release",
        evidence=next(r for r in result.reasons if r.startswith("another question set")),
        advice="scores of different windows never compare; run the task the published score is of",
    )


def _quantized(result: ReproductionResult) -> Cause | None:
    quantization = result.measurement.quantization
    if quantization in ("none", "unknown"):
        return None
    return Cause(
        name="quantized weights",
        evidence=f"these are {quantization}; the published score is for BF16",
        advice="run the gate against a BF16 run to see what the quantization itself costs",
    )


def _nothing_found(result: ReproductionResult) -> Cause:
    others = sorted({f"{row.label} ({row.source_id})" for row in result.others})
    evidence = "settings, truncation and extraction look as they should"
    if others:
        evidence += "; other sources print " + ", ".join(others)
    return Cause(
        name="nothing stands out",
        evidence=evidence,
        advice="measure again with another seed, then compare engines with g4eval drift",
    )


def _budget_for(measurement: Measurement) -> int:
    long = (measurement.benchmark or "").startswith(_LONG_BENCHMARKS)
    return _LONG_BUDGET if long else _SHORT_BUDGET


_CHECKS: tuple[Callable[[ReproductionResult], Cause | None], ...] = (
    _release,
    _thinking,
    _truncated,
    _no_answer,
    _sampling,
    _template,
    _quantized,
    _budget,
)
