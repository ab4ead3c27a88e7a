"""Speed of engine gemma beside transformers and vLLM: one model, one machine, one run.

    nox -s bench -- gemma_speed [--vllm-python PATH] [--requests 32 --prompt 128 --new 64]
                                [--device cuda --dtype bfloat16]

Gemma 3 270M, greedy, ends ignored, so that every engine makes the same number of tokens.
Each contestant runs in a process of its own with the same number of threads, in turns; loading
isn't timed, one short warm-up is made. Also: what eight repeats of a 1,000-token prompt cost beside
one.
Quiet the machine first: on a busy one threads wait for each other and every number is noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4eval.engines.gemma.model import Gemma

MODEL = "gemma-3-270m-demo"


def prompts(count: int, length: int) -> list[list[int]]:
    """Token ids that no two requests share."""
    return [
        [2, *(1000 + (7919 * (row + 1) + 104_729 * at) % 200_000 for at in range(length - 1))]
        for row in range(count)
    ]


def load_ours(threads: int, device_name: str = "cpu", dtype: str = "float32") -> Gemma:
    """Load the model in this process."""
    import torch

    from g4eval.engines.gemma.checkpoint import open_checkpoint
    from g4eval.engines.gemma.weights import load_model

    torch.set_num_threads(threads)
    device = torch.device(device_name)
    checkpoint = open_checkpoint(MODEL, device)
    return load_model(checkpoint.config, checkpoint.source, device, getattr(torch, dtype))


def run_ours(model: Gemma, ids: list[list[int]], new: int) -> float:
    """Seconds for all requests through the scheduler."""
    from g4eval.config import SamplingParams
    from g4eval.engines.gemma.sampling import Sampler
    from g4eval.engines.gemma.scheduler import Capacity, Generation, Scheduler

    params = SamplingParams(temperature=0)
    waiting = [
        Generation(
            prompt_ids=prompt,
            sampler=Sampler(params, seed, prompt),
            max_new_tokens=new,
            ends=lambda _: False,
        )
        for seed, prompt in enumerate(ids)
    ]
    capacity = Capacity(slots=len(ids), cached_tokens=1_000_000, prefix_bytes=1 << 30)
    scheduler = Scheduler(model, capacity)
    start = time.perf_counter()
    while waiting or not scheduler.is_idle:
        while waiting and scheduler.admit(waiting[0]):
            waiting.pop(0)
        scheduler.step()
    return time.perf_counter() - start


def measure_ours(
    ids: list[list[int]], new: int, threads: int, *, device: str, dtype: str
) -> dict[str, float]:
    """Tokens a second of our engine, and what repeats of a prompt cost."""
    model = load_ours(threads, device, dtype)
    run_ours(model, ids[:2], 2)
    seconds = run_ours(model, ids, new)
    long = prompts(2, 1000)
    one = run_ours(model, long[:1], 1)
    eight = run_ours(model, [long[1]] * 8, 1)
    return {"gemma": len(ids) * new / seconds, "prefill ratio of 8 repeats to 1": eight / one}


def measure_transformers(
    ids: list[list[int]], new: int, threads: int, folder: str, *, device: str, dtype: str
) -> dict[str, float]:
    """Tokens a second of `generate`, a request at a time and all at once."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval().to(device)

    def seconds(rows: list[list[int]], tokens: int) -> float:
        batch = torch.tensor(rows, device=device)
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
            ).cpu()
        return time.perf_counter() - start

    seconds(ids[:2], 2)
    singles = ids[:4]  # a few stand for all: each takes as long
    alone = sum(seconds([row], new) for row in singles)
    return {
        "transformers, one by one": len(singles) * new / alone,
        "transformers, one batch": len(ids) * new / seconds(ids, new),
    }


def measure_vllm(
    ids: list[list[int]], new: int, threads: int, folder: str, *, device: str, dtype: str
) -> dict[str, float]:
    """Tokens a second of vLLM, of its CPU build where the device is one."""
    import os

    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    if device == "cpu":
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    from vllm import LLM, SamplingParams

    model = LLM(folder, dtype=dtype, max_model_len=2048, skip_tokenizer_init=True)
    params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
    requests = [{"prompt_token_ids": row} for row in ids]
    model.generate(requests[:2], params, use_tqdm=False)
    start = time.perf_counter()
    model.generate(requests, params, use_tqdm=False)
    return {"vllm": len(ids) * new / (time.perf_counter() - start)}


def save_folder(folder: str) -> None:
    """Write the widened weights as a checkpoint that transformers and vLLM read."""
    import torch
    import transformers

    from g4eval.engines.gemma.checkpoint import open_checkpoint

    path = open_checkpoint(MODEL, torch.device("cpu")).path
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # else the folder claims quantized weights
    model.save_pretrained(folder)


def child(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure one contestant in this process."""
    ids = prompts(arguments.requests, arguments.prompt)
    new, threads, folder = arguments.new, arguments.threads, arguments.folder
    where = {"device": arguments.device, "dtype": arguments.dtype}
    match arguments.only:
        case "gemma":
            return measure_ours(ids, new, threads, **where)
        case "transformers":
            return measure_transformers(ids, new, threads, folder, **where)
        case "vllm":
            return measure_vllm(ids, new, threads, folder, **where)
        case _:
            save_folder(folder)
            return {}


def parent(arguments: argparse.Namespace) -> None:
    """Measure each contestant in a process of its own; print them side by side."""
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", "folder"], check=True)
    contestants = [(name, sys.executable) for name in ("gemma", "transformers")]
    if arguments.vllm_python:
        contestants.append(("vllm", arguments.vllm_python))
    rates: dict[str, float] = {}
    for name, python in contestants * arguments.rounds:
        command = [python, __file__, *sys.argv[1:], "--only", name]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        # vLLM logs to standard output, behind the result too.
        measured = json.loads(next(line for line in out.splitlines() if line.startswith('{"')))
        print(measured, flush=True)
        rates |= {key: max(rate, rates.get(key, 0)) for key, rate in measured.items()}
    print(f"{arguments.requests} x ({arguments.prompt} in, {arguments.new} out), tokens/s")
    for name, rate in rates.items():
        ratio = "" if name.startswith(("gemma", "prefill")) else f"  x{rates['gemma'] / rate:.1f}"
        print(f"{name:32} {rate:8.1f}{ratio}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vllm-python", help="a Python that has vLLM, its CPU build on the CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=1, help="the best of this many counts")
    parser.add_argument("--folder", default="/tmp/gemma-3-270m-float32", help="for widened weights")
    parser.add_argument("--only", choices=["gemma", "transformers", "folder", "vllm"])
    options = parser.parse_args()
    if options.only:
        print(json.dumps(child(options)))
    else:
        parent(options)
