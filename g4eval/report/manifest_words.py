"""A run's manifest in words: a sentence or two, and the facts by section."""

from collections.abc import Mapping
from typing import Any

from g4eval.report.views import Fact
from g4eval.store.stored import Manifest, StoredEngine, StoredPlan, StoredSampling

_MODEL_FACTS = {
    "model": "Model",
    "weights_fingerprint": "Weights, SHA-256",
    "dtype": "Numbers",
    "quantization": "Quantization",
    "chat_template_hash": "Chat template, SHA-256",
    "thinking": "Thinking",
}
_ENGINE_FACTS = {
    "engine": "Engine",
    "engine_version": "Version",
    "attention_backend": "Attention",
    "kv_cache_dtype": "Key/value cache",
    "parallelism": "Parallelism",
    "speculative_decoding": "Speculative decoding",
    "reasoning_parser": "Reasoning parser",
    "server_address": "Server",
    "context_tokens": "Context, tokens",
}


def summary_of(manifest: Manifest) -> str:
    """Return who answered, how it was served and how tokens were drawn."""
    engine = manifest.engine
    served = f"{engine.model}, run by {_known_version(engine)}"
    if engine.dtype not in ("unknown", "none"):
        served += f" in {engine.dtype}"
    if engine.quantization not in ("unknown", "none"):
        served += f", weights {engine.quantization}"
    if engine.thinking in ("on", "off"):
        served += f", thinking {engine.thinking}"
    return f"{served}. {_sampling_words(manifest)}"


def facts_of(manifest: Manifest) -> dict[str, tuple[Fact, ...]]:
    """Return the manifest's facts by section; unknown ones are said to be unknown."""
    engine, declared = manifest.engine, manifest.engine_declared
    sections = {
        "Model": _facts(engine, _MODEL_FACTS, declared),
        "Engine": _facts(engine, _ENGINE_FACTS, declared)
        + tuple(_fact(name, value) for name, value in sorted(engine.other.items())),
        "Sampling": _sampling_facts(manifest),
        "Run": (
            Fact(label="Created", value=manifest.created),
            Fact(label="g4eval", value=manifest.g4eval_version),
            Fact(
                label="Run seed",
                value=str(manifest.identity.seed) if _is_generated(manifest) else "unknown",
            ),
            Fact(label="Engine fingerprint", value=engine.fingerprint[:16]),
            *(_fact(name, value) for name, value in sorted(manifest.platform.items())),
            *(_fact(name, value) for name, value in sorted(manifest.engine_operation.items())),
        ),
    }
    return {title: facts for title, facts in sections.items() if facts}


def _known_version(engine: StoredEngine) -> str:
    version = engine.engine_version
    return engine.engine if version == "unknown" else f"{engine.engine} {version}"


def _facts(
    engine: StoredEngine, labels: Mapping[str, str], declared: tuple[str, ...]
) -> tuple[Fact, ...]:
    facts = []
    for name, label in labels.items():
        value = engine.fact(name)
        if value is None:
            continue
        shown = f"{value[:16]}…" if isinstance(value, str) and len(value) == 64 else str(value)
        note = "declared by the user" if name in declared else ""
        facts.append(Fact(label=label, value=shown, note=note))
    return tuple(facts)


def _fact(name: str, value: Any) -> Fact:
    return Fact(label=name.replace("_", " ").capitalize(), value=str(value))


def _samplings(manifest: Manifest) -> list[tuple[str, StoredSampling]]:
    return [(plan.title, plan.sampling) for plan in manifest.tasks.values()]


def _sampling_words(manifest: Manifest) -> str:
    samplings = _samplings(manifest)
    if not samplings:
        return "Nothing has been planned yet."
    if not _is_generated(manifest):
        words = {plan.sampling_words for plan in manifest.tasks.values()}
        return f"Imported, so only what was stated is known: {'; '.join(sorted(words))}."
    sampling = samplings[0][1]  # a run has one sampling; budgets differ by task
    budgets = sorted({s.max_new_tokens for _, s in samplings})
    drawn = (
        "Decoded greedily"
        if sampling.temperature == 0
        else f"Sampled at temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
        f"top-k {sampling.top_k}"
    )
    most = " to ".join(f"{budget:,}" for budget in dict.fromkeys((budgets[0], budgets[-1])))
    return f"{drawn}, at most {most} tokens an answer, run seed {manifest.identity.seed}."


def _sampling_facts(manifest: Manifest) -> tuple[Fact, ...]:
    plans = list(manifest.tasks.values())
    if not plans:
        return ()
    first, sampling = plans[0], plans[0].sampling
    return (
        _drawn(first, "temperature", "Temperature", f"{sampling.temperature:g}"),
        _drawn(first, "top_p", "Top-p", f"{sampling.top_p:g}"),
        _drawn(first, "top_k", "Top-k", str(sampling.top_k)),
        *(
            _drawn(
                plan,
                "max_new_tokens",
                f"Budget, {plan.title}",
                f"{plan.sampling.max_new_tokens:,} tokens",
            )
            for plan in plans
        ),
    )


def _drawn(plan: StoredPlan, name: str, label: str, value: str) -> Fact:
    if not plan.knows(name):
        return Fact(label=label, value="unknown")
    return Fact(label=label, value=value, note="" if plan.is_generated else "declared by the user")


def _is_generated(manifest: Manifest) -> bool:
    return all(plan.is_generated for plan in manifest.tasks.values())
