"""Tiny random models of every variant, made by transformers and saved as checkpoints."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch isn't installed: extra gemma")
transformers = pytest.importorskip("transformers", reason="the reference, transformers, isn't here")

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers  # noqa: E402

from g4eval.engines.gemma.checkpoint import Checkpoint, open_checkpoint  # noqa: E402  after skips
from g4eval.engines.gemma.model import Gemma  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402

CPU = torch.device("cpu")
VOCABULARY = 300
WINDOW = 7

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": WINDOW,
    "max_position_embeddings": 4096,
}
_GEMMA4: dict[str, Any] = {
    **_COMMON,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 32,
}
_SLIDING, _FULL = "sliding_attention", "full_attention"
_LINEAR_ROPE = {
    _FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}
# Every way in which a released size differs from another.
VARIANTS: dict[str, dict[str, Any]] = {
    "gemma3": {**_COMMON, "num_hidden_layers": 8, "query_pre_attn_scalar": 16},
    "gemma3_linear_rope": {
        **_COMMON,
        "num_hidden_layers": 8,
        "query_pre_attn_scalar": 21,
        "rope_parameters": _LINEAR_ROPE,
    },
    "dense_k_is_v": {
        **_GEMMA4,
        "num_hidden_layers": 6,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    },
    "ple_shared_kv": {
        **_GEMMA4,
        "num_hidden_layers": 8,
        "layer_types": [_SLIDING, _SLIDING, _SLIDING, _FULL] * 2,
        "num_kv_shared_layers": 4,
        "hidden_size_per_layer_input": 8,
    },
    "ple_double_wide": {
        **_GEMMA4,
        "num_hidden_layers": 6,
        "layer_types": [_SLIDING, _FULL] * 3,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 8,
    },
    "mixture": {
        **_GEMMA4,
        "num_hidden_layers": 6,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "enable_moe_block": True,
        "num_experts": 16,
        "top_k_experts": 4,
        "moe_intermediate_size": 24,
    },
    "unified": {
        **_GEMMA4,
        "num_hidden_layers": 6,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "use_bidirectional_attention": "vision",
    },
}
_CLASSES = {
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "unified": ("Gemma4UnifiedTextConfig", "Gemma4UnifiedForCausalLM"),
}


@dataclass(frozen=True)
class TinyModel:
    """One checkpoint, and the reference that wrote it."""

    folder: Path
    reference: Any

    def open(self) -> Checkpoint:
        """Open the folder as the engine would."""
        return open_checkpoint(str(self.folder), CPU)

    def load(self, device: Any = CPU, dtype: Any = torch.float32) -> Gemma:
        """Load the folder."""
        checkpoint = open_checkpoint(str(self.folder), device)
        return load_model(checkpoint.config, checkpoint.source, device, dtype)

    def reference_logprobs(self, token_ids: list[int]) -> Any:
        """Log-probabilities [T, V] as transformers computes them."""
        with torch.inference_mode():
            logits = self.reference(torch.tensor([token_ids])).logits[0]
        return torch.log_softmax(logits, dim=-1)


MakeTiny = Callable[..., TinyModel]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and a busy machine makes them wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    """Each device that the engine runs on."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch.device(request.param)


@pytest.fixture
def variants() -> dict[str, dict[str, Any]]:
    """The config values of every variant."""
    return VARIANTS


@pytest.fixture
def make_tiny(tmp_path: Path) -> MakeTiny:
    """Make a random checkpoint: `make_tiny(variant)`, or of a config's own values."""

    def make(
        variant: str, values: dict[str, Any] | None = None, *, seed: int = 0, shake: bool = False
    ) -> TinyModel:
        kind = next((k for k in _CLASSES if variant.startswith(k)), None)
        names = _CLASSES[kind] if kind else ("Gemma4TextConfig", "Gemma4ForCausalLM")
        if not hasattr(transformers, names[1]):
            pytest.skip(f"this transformers has no {names[1]}")
        config = getattr(transformers, names[0])(**(values or VARIANTS[variant]))
        config._attn_implementation = "eager"
        torch.manual_seed(seed)
        reference = getattr(transformers, names[1])(config).eval()
        if shake:
            _shake(reference)
        folder = tmp_path / f"{variant}-{seed}-{shake}"
        reference.save_pretrained(folder)
        return TinyModel(folder, reference)

    return make


def _shake(reference: Any) -> None:
    """Move every norm and scale away from its initial value."""
    tensors = [*reference.named_parameters(), *reference.named_buffers()]
    for name, tensor in tensors:
        if "norm" in name or name.endswith(("layer_scalar", "router.scale", "per_expert_scale")):
            tensor.data += 0.3 * torch.randn_like(tensor)


@pytest.fixture
def add_tokenizer() -> Callable[..., None]:
    """Write a tokenizer of single bytes, `VOCABULARY` tokens in all, into a checkpoint folder."""

    def add(folder: Path, *, tokens: int = VOCABULARY) -> None:
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
        special += ["<|channel>", "<channel|>", "<|think|>"]
        names = special + [f"<0x{byte:02X}>" for byte in range(256)]
        names += [f"word{i}" for i in range(tokens - len(names))]
        tokenizer = Tokenizer(
            models.BPE(
                vocab={name: i for i, name in enumerate(names)},
                merges=[],
                unk_token="<unk>",
                byte_fallback=True,
            )
        )
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")]
        )
        tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
        tokenizer.save(str(folder / "tokenizer.json"))

    return add


@pytest.fixture
def random_ids() -> Callable[[int, int], list[int]]:
    """Token ids drawn from a seed: `random_ids(length, seed)`."""

    def draw(length: int, seed: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        ids: list[int] = torch.randint(5, VOCABULARY, (length,), generator=generator).tolist()
        return ids

    return draw
