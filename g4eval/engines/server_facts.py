"""Find out which server stands behind an address, and what it says of itself.

Asked once, before the first request; everything may be missing: then a fact stays unknown. Facts
that g4eval has read since its first version are part of the engine's fingerprint. What is learned
in a newer way (`context_limit`, `slots`, `product`) stands with the facts of operation, so that the
keys of stored runs don't move.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from g4eval.engines.base import UNKNOWN
from g4eval.engines.server_address import public_address, server_root
from g4eval.engines.server_json import as_mapping, as_name, as_rows, as_size

__all__ = ["ServerFacts", "ask_server", "public_address", "server_root"]

# Names that lists of models give to a context: vLLM, OpenRouter and Together, Mistral, Groq.
_CONTEXT_NAMES = ("max_model_len", "context_length", "max_context_length", "context_window")
_MAX_SEQUENCES = re.compile(r'max_num_seqs(?:="|\{[^}\n]*\}\s+|\s+)(\d{1,9})')


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a server tells about itself."""

    kind: str = UNKNOWN  # vllm, sglang, llama.cpp, ollama
    version: str = UNKNOWN
    models: tuple[str, ...] = ()  # the ids it serves; empty: it doesn't say
    context_tokens: int | None = None
    chat_template_hash: str = UNKNOWN
    dtype: str = UNKNOWN
    quantization: str = UNKNOWN
    kv_cache_dtype: str = UNKNOWN
    attention_backend: str = UNKNOWN
    parallelism: str = UNKNOWN
    speculative_decoding: str = UNKNOWN
    reasoning_parser: str = UNKNOWN
    # Learned in newer ways: facts of operation.
    product: str = UNKNOWN  # a kind that isn't one of the above, with its version
    context_limit: int | None = None
    slots: int | None = None  # requests it works on at once


# Gives the JSON value at an address, an empty object where there is none.
Ask = Callable[[str], Awaitable[Any]]
Post = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
Read = Callable[[str], Awaitable[str]]


async def _nothing(_: str, body: object = None) -> Any:  # noqa: ARG001  as Post calls it
    return {}


async def _no_text(_: str) -> str:
    return ""


async def ask_server(
    ask: Ask,
    address: str,
    models_body: Any,
    model: str,
    *,
    post: Post = _nothing,
    read: Read = _no_text,
) -> ServerFacts:
    """Return what the server says of itself.

    Args:
        ask: reads the JSON at an address.
        address: the API's, ending in /v1 as a rule.
        models_body: what `/models` answered.
        model: the id that requests will name.
        post: sends JSON to an address and reads what answers.
        read: reads the text at an address.
    """
    rows = list_models(models_body)
    row = next((r for r in rows if r.get("id") == model), rows[0] if len(rows) == 1 else {})
    models = tuple(name for r in rows if (name := as_name(r.get("id"))))
    context = as_size(row.get("max_model_len"))
    limit = None if context else _context_of(row, rows)
    owner = row.get("owned_by")
    root = server_root(address)
    if owner == "vllm":
        version = as_mapping(await ask(f"{root}/version")).get("version")
        return ServerFacts(
            kind="vllm",
            version=as_name(version) or UNKNOWN,
            models=models,
            context_tokens=context,
            context_limit=limit,
            slots=_max_sequences(await read(f"{root}/metrics")),
        )
    if owner == "sglang":
        info = as_mapping(await ask(f"{root}/get_server_info"))
        return replace(_from_sglang(info, models, context), context_limit=limit)
    if owner == "llamacpp":
        return _from_llama_cpp(as_mapping(await ask(f"{root}/props")), models)
    if version := as_name(as_mapping(await ask(f"{root}/api/version")).get("version")):
        found = await _ollama_context(ask, post, root, model)
        return ServerFacts(kind="ollama", version=version, models=models, context_limit=found)
    facts = ServerFacts(models=models, context_tokens=context, context_limit=limit)
    return await _of_another_kind(ask, root, facts, model)


def list_models(body: Any) -> list[dict[str, Any]]:
    """Return the rows of a list of models: in `data` or `models`, or a bare array."""
    if isinstance(body, list):
        return as_rows(body)
    whole = as_mapping(body)
    return as_rows(whole.get("data")) or [
        {"id": row.get("id") or row.get("name") or row.get("model"), **row}
        for row in as_rows(whole.get("models"))
    ]


def find_model(asked: str, served: tuple[str, ...]) -> bool:
    """Whether a server that lists these takes this name: Ollama's `:latest` may be left out."""
    return asked in served or f"{asked}:latest" in served


def _context_of(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> int | None:
    """Return the context of a model's row, or of the model that it is an adapter of."""
    named = next((size for n in _CONTEXT_NAMES if (size := as_size(row.get(n)))), None)
    parent = row.get("parent")
    if named is not None or not parent:
        return named
    whole = next((r for r in rows if r.get("id") == parent), {})
    return as_size(whole.get("max_model_len"))


def _max_sequences(metrics: str) -> int | None:
    found = _MAX_SEQUENCES.search(metrics)
    return as_size(int(found[1])) if found else None


async def _ollama_context(ask: Ask, post: Post, root: str, model: str) -> int | None:
    """Return the context of a loaded model, else the one it will be loaded with."""
    names = (model, f"{model}:latest")
    for row in as_rows(as_mapping(await ask(f"{root}/api/ps")).get("models")):
        if row.get("name") in names or row.get("model") in names:
            return as_size(row.get("context_length"))
    shown = as_mapping(await post(f"{root}/api/show", {"model": model}))
    asked = re.search(r"num_ctx\s+(\d{1,9})", str(shown.get("parameters", "")))
    if asked:
        return as_size(int(asked[1]))
    sizes = as_mapping(shown.get("model_info")).items()
    return next((as_size(v) for name, v in sizes if name.endswith(".context_length")), None)


async def _of_another_kind(ask: Ask, root: str, facts: ServerFacts, model: str) -> ServerFacts:
    """Ask as TGI, LM Studio and llama.cpp behind another name answer."""
    info = as_mapping(await ask(f"{root}/info"))
    if as_size(info.get("max_total_tokens")):
        return replace(
            facts,
            product=f"tgi {as_name(info.get('version')) or UNKNOWN}",
            context_limit=as_size(info["max_total_tokens"]),
            slots=as_size(info.get("max_concurrent_requests")),
        )
    for row in as_rows(as_mapping(await ask(f"{root}/api/v0/models")).get("data")):
        if row.get("id") == model and as_size(row.get("loaded_context_length")):
            return replace(
                facts, product="lm studio", context_limit=as_size(row["loaded_context_length"])
            )
    props = as_mapping(await ask(f"{root}/props"))
    if as_size(props.get("total_slots")):
        there = _from_llama_cpp(props, facts.models)
        limit = there.context_tokens or facts.context_limit
        product = f"llama.cpp {there.version}"
        return replace(facts, product=product, context_limit=limit, slots=there.slots)
    return facts


def _from_sglang(
    info: Mapping[str, Any], models: tuple[str, ...], context: int | None
) -> ServerFacts:
    # Names: ServerArgs, python/sglang/srt/server_args.py; null is the default of most.
    def fact(name: str, default: str = UNKNOWN) -> str:
        value = info.get(name)
        told = as_name(value) if isinstance(value, str) else as_name(str(value or ""))
        return told or (default if info else UNKNOWN)

    tp, dp = info.get("tp_size"), info.get("dp_size") or 1
    return ServerFacts(
        kind="sglang",
        version=fact("version"),
        models=models,
        context_tokens=context,
        dtype=fact("dtype"),
        quantization=fact("quantization", "none"),
        kv_cache_dtype=fact("kv_cache_dtype"),
        attention_backend=fact("attention_backend"),
        parallelism=f"tp{as_size(tp)} dp{as_size(dp) or 1}" if as_size(tp) else UNKNOWN,
        speculative_decoding=fact("speculative_algorithm", "none"),
        reasoning_parser=fact("reasoning_parser", "none"),
        slots=as_size(info.get("max_running_requests")),
    )


def _from_llama_cpp(props: Mapping[str, Any], models: tuple[str, ...]) -> ServerFacts:
    template = props.get("chat_template")
    settings = as_mapping(props.get("default_generation_settings"))
    context = as_size(settings.get("n_ctx"))
    return ServerFacts(
        kind="llama.cpp",
        version=as_name(props.get("build_info")) or UNKNOWN,
        models=models,
        context_tokens=context,
        chat_template_hash=(
            hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
            if isinstance(template, str)
            else UNKNOWN
        ),
        slots=as_size(props.get("total_slots")),
    )
