"""Find out which server stands behind an address, and what it says of itself.

Asked once, before the first request. Only `/models` must answer; the rest is each server's own and
may be missing: then a fact stays unknown.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from g4eval.engines.base import UNKNOWN


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


# Gives the JSON object at an address, an empty one where there is none.
Ask = Callable[[str], Awaitable[dict[str, Any]]]


async def ask_server(
    ask: Ask, address: str, models_body: Mapping[str, Any], model: str
) -> ServerFacts:
    """Return what the server says of itself.

    Args:
        ask: reads an address.
        address: the API's, ending in /v1 as a rule.
        models_body: what `/models` answered.
        model: the id that requests will name.
    """
    rows = [row for row in models_body.get("data") or () if isinstance(row, dict)]
    row = next((r for r in rows if r.get("id") == model), rows[0] if len(rows) == 1 else {})
    models = tuple(str(r["id"]) for r in rows if "id" in r)
    context = _as_context(row.get("max_model_len"))
    owner = row.get("owned_by")
    root = server_root(address)
    if owner == "vllm":
        return ServerFacts(
            kind="vllm",
            version=str((await ask(f"{root}/version")).get("version", UNKNOWN)),
            models=models,
            context_tokens=context,
        )
    if owner == "sglang":
        return _from_sglang(await ask(f"{root}/get_server_info"), models, context)
    if owner == "llamacpp":
        return _from_llama_cpp(await ask(f"{root}/props"), models)
    if "version" in (ollama := await ask(f"{root}/api/version")):
        return ServerFacts(kind="ollama", version=str(ollama["version"]), models=models)
    return ServerFacts(models=models, context_tokens=context)


def public_address(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))


def server_root(address: str) -> str:
    """Return where the server's own routes stand: the API's address without /v1."""
    return address.rstrip("/").removesuffix("/v1")


def _from_sglang(info: dict[str, Any], models: tuple[str, ...], context: int | None) -> ServerFacts:
    # Names: ServerArgs, python/sglang/srt/server_args.py; null is the default of most.
    def fact(name: str, default: str = UNKNOWN) -> str:
        return str(info.get(name) or (default if info else UNKNOWN))

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
        parallelism=f"tp{tp} dp{dp}" if tp else UNKNOWN,
        speculative_decoding=fact("speculative_algorithm", "none"),
        reasoning_parser=fact("reasoning_parser", "none"),
    )


def _from_llama_cpp(props: dict[str, Any], models: tuple[str, ...]) -> ServerFacts:
    template = props.get("chat_template")
    settings = props.get("default_generation_settings")
    return ServerFacts(
        kind="llama.cpp",
        version=str(props.get("build_info") or UNKNOWN),
        models=models,
        context_tokens=_as_context(settings.get("n_ctx") if isinstance(settings, dict) else None),
        chat_template_hash=(
            hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else UNKNOWN
        ),
    )


def _as_context(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
