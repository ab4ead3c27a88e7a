"""Tokens a second of engine gemma's kernels on one GPU, at real sizes with random weights.

One model and one number of requests a call: prompts of random tokens, all answers of one length,
ends ignored, temperature 1, top-p .95, top-k 64, a seed a request. Prints a line of JSON a repeat
and appends it to `--out`. The share of the bandwidth is what a decode step must read (every weight
once, the keys and values of every request) over the time it takes, against a copy on this card in
this call; a copy counts what is read and what is written.

    python benchmarks/gpu.py 31b --batch 1 --prompt-tokens 128 --new-tokens 128
"""

import argparse
import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from g4eval.engines.gemma.batch import PromptPart
from g4eval.engines.gemma.config import parse_config
from g4eval.engines.gemma.kernels.cuda import CudaKernels
from g4eval.engines.gemma.kernels.decoding import Decoder, Drawing
from g4eval.engines.gemma.kernels.launching import Launching
from g4eval.engines.gemma.kernels.paged_cache import PAGE, PagedCache, Pages
from g4eval.engines.gemma.kernels.parts import for_cuda
from g4eval.engines.gemma.kernels.products import CudaLinear, Weight
from g4eval.engines.gemma.model import Gemma
from g4eval.engines.gemma.random_source import RandomSource
from g4eval.engines.gemma.weights import load_model

S, F = "sliding_attention", "full_attention"
GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 1024,
    "max_position_embeddings": 131072,
}
# Sizes as the released checkpoints' config.json has them.
SIZES: dict[str, dict[str, Any]] = {
    "e2b": {
        **GEMMA4,
        "hidden_size": 1536,
        "num_hidden_layers": 35,
        "layer_types": [S, S, S, S, F] * 7,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "intermediate_size": 6144,
        "hidden_size_per_layer_input": 256,
        "sliding_window": 512,
    },
    "e4b": {
        **GEMMA4,
        "hidden_size": 2560,
        "num_hidden_layers": 42,
        "num_kv_shared_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 10240,
        "hidden_size_per_layer_input": 256,
        "sliding_window": 512,
    },
    "12b": {
        **GEMMA4,
        "hidden_size": 3840,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "intermediate_size": 15360,
    },
    "26b": {
        **GEMMA4,
        "hidden_size": 2816,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "intermediate_size": 2112,
        "enable_moe_block": True,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
    },
    "31b": {
        **GEMMA4,
        "hidden_size": 5376,
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "attention_k_eq_v": True,
        "intermediate_size": 21504,
    },
}


def make_model(size: str, kind: str, launching: Launching, layers: int | None = None) -> Gemma:
    """Return a random model on the card, its linear layers in `kind` of weights."""
    values = dict(SIZES[size])
    if layers is not None:
        values["num_hidden_layers"] = layers
    config = parse_config(values, where=size)
    device = torch.device("cuda")
    source = RandomSource(config, seed=0, device=device, dtype=torch.bfloat16)
    model = for_cuda(load_model(config, source, device, torch.bfloat16), launching)
    return model if kind == "bfloat16" else quantized(model, kind)


def quantized(model: Gemma, kind: str) -> Gemma:
    """Return the model with its layers' products in 4 bits or FP8; head and embeddings stay."""

    def packed(product: Any) -> CudaLinear:
        weight = product.weight.values
        if kind == "fp8":
            scale = weight.abs().amax(dim=1, keepdim=True).float() / 448
            made = Weight.scaled((weight / scale).to(torch.float8_e4m3fn), scale)
        else:
            groups = weight.float().view(len(weight), -1, 32)
            low = -groups.amin(dim=2, keepdim=True)
            scale = (groups.amax(dim=2, keepdim=True) + low) / 15
            numbers = ((groups + low) / scale).round().clamp(0, 15).to(torch.uint8)
            made = Weight.grouped(numbers.view(weight.shape), scale[..., 0], low[..., 0])
        return CudaLinear(made, Launching())

    blocks = []
    for block in model.blocks:
        mlp: Any = block.mlp
        smaller = replace(mlp, gate_up=packed(mlp.gate_up), down=packed(mlp.down))
        qkv, out = packed(block.qkv), packed(block.attention_out)
        blocks.append(replace(block, qkv=qkv, attention_out=out, mlp=smaller))
    return replace(model, blocks=tuple(blocks))


def bytes_a_step(model: Gemma, batch: int, length: int) -> int:
    """Return the fewest bytes that one decode step of so many rows reads."""
    parts: Any = model
    total = parts.head.product.weight.nbytes
    if model.ple is not None:
        total += parts.ple.projection.weight.nbytes
    for block in parts.blocks:
        products = [block.qkv, block.attention_out, block.mlp.gate_up, block.mlp.down]
        if block.ple is not None:
            products += [block.ple.gate, block.ple.projection]
        total += sum(product.weight.nbytes for product in products)
        if block.moe is not None:
            experts, active = len(block.moe.experts.down), model.config.moe.active
            touched = 1 - (1 - active / experts) ** batch  # expected share of the experts
            both = block.moe.experts.gate_up.nbytes + block.moe.experts.down.nbytes
            total += int(touched * both) + block.moe.router.proj.weight.nbytes
        layer = block.layer
        seen = min(length, model.config.window) if layer.sliding else length
        total += batch * seen * 2 * layer.kv_heads * layer.head_dim * 2
    return int(total)


def make_decoder(
    model: Gemma, launching: Launching, batch: int, tokens: int, prompt_rows: int
) -> Decoder:
    """Return a decoder with pages for so many requests of so many tokens."""
    full = batch * -(-tokens // PAGE) + 1
    ring = -(-(model.config.window + prompt_rows) // PAGE) + 2
    sliding = min(full, batch * ring + 1)
    cache = PagedCache(
        model.config,
        slots=batch,
        tokens=tokens,
        pages=Pages(sliding=sliding, full=full),
        device=model.device,
        dtype=model.dtype,
    )
    return Decoder(model, CudaKernels(launching), cache)


def generate(
    decoder: Decoder, prompts: list[list[int]], new_tokens: int, prompt_rows: int
) -> tuple[list[torch.Tensor], float, float]:
    """Return the tokens of each step, the seconds of all prompts, and those of the steps."""
    for slot, prompt in enumerate(prompts):
        decoder.cache.release(slot)
        decoder.slots.begin(slot, len(prompt), Drawing(seed=slot))
    torch.cuda.synchronize()
    began = time.perf_counter()
    firsts: list[torch.Tensor] = []
    length = len(prompts[0])
    at_once = max(1, prompt_rows // length)
    for start in range(0, len(prompts), at_once):
        slots = range(start, min(start + at_once, len(prompts)))
        for place in range(0, length, prompt_rows):  # one round, unless a prompt is longer
            parts = [PromptPart(s, place, prompts[s][place : place + prompt_rows]) for s in slots]
            stop = place + len(parts[0].token_ids)
            for slot in slots:
                decoder.cache.leave_behind(slot, place)
                decoder.cache.reserve(slot, stop if stop < length else length + new_tokens)
            drawn = decoder.prefill(parts, range(len(parts)) if stop == length else [])
        firsts.append(drawn)
    torch.cuda.synchronize()
    filled = time.perf_counter()
    tokens = [torch.cat(firsts).cpu()]
    longest = len(prompts[0]) + new_tokens
    slots = range(len(prompts))
    out = torch.empty((new_tokens - 1, len(prompts)), dtype=torch.long, pin_memory=True)
    for step in range(new_tokens - 1):
        out[step].copy_(decoder.step(slots, longest), non_blocking=True)
    torch.cuda.synchronize()
    ended = time.perf_counter()
    return [*tokens, *out], filled - began, ended - filled


def copy_bandwidth() -> float:
    """Return bytes a second, read and written, of a large copy on this card."""
    source = torch.empty(1 << 32, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return 2 * source.nbytes / sorted(times)[len(times) // 2]


def card() -> dict[str, str]:
    """Return what a number without is worth nothing: card, clocks, driver, versions."""
    import triton

    asked = "name,driver_version,clocks.sm,clocks.mem"
    told = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {"card": told, "torch": torch.__version__, "triton": triton.__version__}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run one cell, three times after one that compiles and records."""
    launching = Launching(batch_invariant=arguments.batch_invariant)
    bandwidth = copy_bandwidth()
    began = time.perf_counter()
    model = make_model(arguments.size, arguments.weights, launching, arguments.layers)
    torch.cuda.synchronize()
    made = time.perf_counter() - began
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    batch, length = arguments.batch, arguments.prompt_tokens + arguments.new_tokens
    decoder = make_decoder(model, launching, batch, length, arguments.prompt_rows)
    made_of = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 262_000, (batch, arguments.prompt_tokens), generator=made_of)
    began = time.perf_counter()
    generate(decoder, prompts.tolist(), 4, arguments.prompt_rows)
    warm = time.perf_counter() - began
    facts = {
        **card(),
        "size": arguments.size,
        "weights": arguments.weights,
        "batch": batch,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "batch_invariant": arguments.batch_invariant,
        "copy_TBps": round(bandwidth / 1e12, 3),
        "seconds_making": round(made, 1),
        "seconds_compiling": round(warm, 1),
    }
    print(json.dumps(facts), flush=True)
    rows = []
    for _ in range(arguments.repeats):
        tokens, filling, decoding = generate(
            decoder, prompts.tolist(), arguments.new_tokens, arguments.prompt_rows
        )
        step = decoding / (arguments.new_tokens - 1)
        read = bytes_a_step(model, batch, arguments.prompt_tokens + arguments.new_tokens // 2)
        row = {
            "tokens_per_second": round(batch * arguments.new_tokens / (filling + decoding), 1),
            "decode_tokens_per_second": round(batch / step, 1),
            "step_ms": round(step * 1000, 3),
            "prefill_tokens_per_second": round(batch * arguments.prompt_tokens / filling),
            "GB_a_step": round(read / 1e9, 2),
            "share_of_copy_bandwidth": round(read / step / bandwidth, 3),
            "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 1),
            "checksum": int(torch.stack(tokens).sum()),
        }
        rows.append({**facts, **row})
        print(json.dumps(row), flush=True)
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--prompt-rows", type=int, default=8192, help="rows of a prefill pass")
    parser.add_argument("--weights", choices=["bfloat16", "int4", "fp8"], default="bfloat16")
    parser.add_argument("--batch-invariant", action="store_true")
    parser.add_argument("--layers", type=int, help="fewer layers than the size has")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    return parser.parse_args()


def main() -> None:
    """Measure one cell."""
    arguments = parse()
    rows = measure(arguments)
    if arguments.out is not None:
        with arguments.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
