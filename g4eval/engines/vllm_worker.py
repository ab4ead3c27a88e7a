"""What vLLM's workers know and its engine doesn't: mixed into the worker class by its name.

vLLM imports this inside the worker process (`worker_extension_cls`); it uses nothing of ours.
"""

from typing import Any


class FactsExtension:
    """Adds to a vLLM worker the question which kernels it chose."""

    vllm_config: Any

    def g4eval_attention_facts(self) -> dict[str, list[str]]:
        """Return the attention backends and KV-cache dtypes of the worker's layers, sorted."""
        layers = [
            layer
            for layer in self.vllm_config.compilation_config.static_forward_context.values()
            if hasattr(layer, "get_attn_backend")
        ]
        return {
            "backends": sorted({layer.get_attn_backend().get_name() for layer in layers}),
            "kv_cache_dtypes": sorted(
                {
                    str(dtype)
                    for dtype in (getattr(y, "kv_cache_dtype", None) for y in layers)
                    if dtype
                }
            ),
        }
