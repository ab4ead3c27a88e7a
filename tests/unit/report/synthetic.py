"""Invented runs for the report: everything follows from hashes, so a run is the same every time."""

import hashlib
import math
import random
from dataclasses import replace

from g4eval.records import Chat, Message, Outcome
from g4eval.report.reproduction import Measurement
from g4eval.report.views import (
    Fact,
    GroupView,
    JudgedTest,
    MetricView,
    RepeatTexts,
    RepeatView,
    RunView,
    SampleTexts,
    SampleView,
    TaskView,
)
from g4eval.stats.accuracy import Scored, estimate
from g4eval.store.schema import pack_prompt, pack_text

SENTENCE = """let us count the ways and check each case again because the sum of first terms is even
so remaining factor divides it which leaves two candidates one of them too large"""
WORDS = SENTENCE.split()


def unit(*parts):
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def prose(n_words, *parts):
    draw = random.Random(hashlib.sha256(repr(parts).encode()).digest())
    return " ".join(draw.choices(WORDS, k=n_words)).capitalize() + "."


def estimate_of(samples):
    return estimate(
        [
            Scored(sample=i, outcome=repeat.outcome, truncated=repeat.is_truncated)
            for i, sample in enumerate(samples)
            for repeat in sample.repeats
        ]
    )


def repeat_view(run_id, task_id, sample_id, repeat, share, cut_share, spread=0.9):
    ease = (unit(task_id, sample_id) - 0.5) * spread + share
    cut = unit(run_id, task_id, sample_id, repeat, "cut") < cut_share
    if cut:
        outcome = Outcome.NO_ANSWER
    elif unit(run_id, task_id, sample_id, repeat) < ease:
        outcome = Outcome.CORRECT
    elif unit(run_id, task_id, sample_id, repeat, "none") < 0.06:
        outcome = Outcome.NO_ANSWER
    else:
        outcome = Outcome.INCORRECT
    tokens = int(900 * math.exp(2.6 * unit(run_id, task_id, sample_id, repeat, "tokens")))
    return RepeatView(
        repeat=repeat,
        outcome=outcome,
        is_truncated=cut,
        readings_disagree=unit(run_id, task_id, sample_id, repeat, "second") < 0.03,
        completion_tokens=65536 if cut else tokens,
    )


def texts_of(run_id, task_id, sample, target):
    repeats = []
    for view in sample.repeats:
        right = view.outcome is Outcome.CORRECT
        answer = target if right else str((int(target) + 7) % 1000)
        where = (run_id, task_id, sample.sample_id, view.repeat)
        text = f"{prose(60, *where)}\n\nTherefore the answer is \\boxed{{{answer}}}."
        tests: tuple[JudgedTest, ...] = ()
        verdict = None
        if task_id.startswith("livecodebench"):
            extra = "" if right else " + 1"
            text = (
                "Read the numbers and print their sum.\n\n"
                f"```python\nprint(sum(map(int, input().split())){extra})\n```"
            )
            verdict = "AC" if right else "WA"
            tests = (
                JudgedTest(verdict="AC"),
                JudgedTest(verdict="AC"),
                JudgedTest(
                    verdict=verdict,
                    input="4 5 6\n",
                    expected="15\n",
                    got="15\n" if right else "16\n",
                ),
            )
            answer = None
        if view.outcome is Outcome.NO_ANSWER:
            text, answer = ("" if view.is_truncated else prose(30, *where, "lost")), None
        repeats.append(
            RepeatTexts(
                repeat=view.repeat,
                prompt=pack_prompt(
                    Chat(
                        (
                            Message(
                                role="user",
                                content=prose(45, task_id, sample.sample_id)
                                + "\n\nPut your final answer within \\boxed{}.",
                            ),
                        )
                    )
                ),
                text=pack_text(text),
                reasoning=pack_text("\n\n".join(prose(90, *where, i) for i in range(4))),
                stop_reason="length" if view.is_truncated else "stop",
                extraction=answer,
                lenient_extraction="12" if view.readings_disagree else answer,
                verdict=verdict,
                notes=("the thought was not closed",) if view.is_truncated else (),
                tests=tests,
                prompt_tokens=212,
                reasoning_tokens=None
                if view.completion_tokens is None
                else view.completion_tokens * 4 // 5,
                seconds=(view.completion_tokens or 0) / 61,
            )
        )
    return SampleTexts(sample_id=sample.sample_id, target=target, repeats=tuple(repeats))


TASKS = {
    "aime26": ("AIME 2026", "aime26", "accuracy", 30, 4, "aime2026-{}"),
    "gpqa_diamond": ("GPQA Diamond", "gpqa_diamond", "accuracy", 198, 1, "recA{}"),
    "livecodebench_v6": ("LiveCodeBench v6", "livecodebench_v6", "pass@1", 175, 1, "arc19{}_a"),
    "bbeh_mini": ("BBEH mini", "bbeh_mini", "micro average", 460, 1, "bbeh_word_sorting/{}"),
}
GROUPS = {
    "livecodebench_v6": ("difficulty", ("easy", "medium", "hard")),
    "bbeh_mini": ("task", ("word sorting", "boolean expressions", "zebra puzzles", "linguini")),
    "gpqa_diamond": ("subject", ("Physics", "Chemistry", "Biology")),
    "aime26": ("part", ("I", "II")),
}


def task_view(run_id, task_id, share, cut_share, *, published_as, engine, limit=None, **changes):
    title, benchmark, metric, n, k, pattern = TASKS[task_id]
    group, values = GROUPS[task_id]
    samples = tuple(
        SampleView(
            sample_id=pattern.format(i),
            groups={group: values[i % len(values)]},
            repeats=tuple(
                repeat_view(run_id, task_id, pattern.format(i), r, share, cut_share)
                for r in range(k)
            ),
        )
        for i in range(min(n, limit or n))
    )
    whole = estimate_of(samples)
    return TaskView(
        task_id=task_id,
        title=title,
        version=1,
        is_gated=task_id == "gpqa_diamond",
        measurement=Measurement(
            model=published_as,
            published_as=published_as,
            benchmark=benchmark,
            estimate=whole,
            metric=metric,
            n_samples_full=n,
            is_partial=limit is not None and limit < n,
            engine=engine,
            thinking="on",
            share_with_thought=1.0,
            max_new_tokens=65536,
            **changes,
        ),
        metrics=(
            (MetricView(name="adjusted harmonic mean", value=whole.value * 0.6),)
            if task_id == "bbeh_mini"
            else ()
        ),
        groups=tuple(
            GroupView(
                group=group,
                value=value,
                estimate=estimate_of([s for s in samples if s.groups[group] == value]),
            )
            for value in values
        ),
        samples=samples,
        n_planned=len(samples) * k,
        tokens_per_second=1840.0,
        hours=len(samples) * k * 0.004,
    )


def run_view(
    run_id="gemma-4-31b-vllm-3fa2c1d0",
    model="google/gemma-4-31B-it",
    *,
    engine="vllm",
    shares=None,
    cut_share=0.01,
    limit=None,
    quantization="none",
    **changes,
):
    shares = shares or {
        "aime26": 0.90,
        "gpqa_diamond": 0.85,
        "livecodebench_v6": 0.80,
        "bbeh_mini": 0.72,
    }
    tasks = tuple(
        task_view(
            run_id,
            task_id,
            share,
            cut_share,
            published_as=model,
            engine=engine,
            limit=limit,
            quantization=quantization,
        )
        for task_id, share in shares.items()
    )

    def read_texts(task_id):
        task = next(t for t in tasks if t.task_id == task_id)
        for sample in task.samples:
            yield texts_of(run_id, task_id, sample, str(int(unit(sample.sample_id) * 1000)))

    whole = RunView(
        run_id=run_id,
        model=model,
        engine=engine,
        summary=(
            f"{model}, served by {engine} 0.23.1 in bfloat16, thinking on. Sampled at "
            " temperature 1, top-p 0.95, top-k 64, up to 65,536 tokens an answer, run seed 0."
        ),
        facts={
            "Model": (
                Fact(label="Weights", value=model, note="SHA-256 5d41402abc4b, verified"),
                Fact(label="Quantization", value=quantization),
                Fact(label="Chat template", value="a3f1c09b22d7"),
                Fact(label="Thinking", value="on"),
            ),
            "Engine": (
                Fact(label="Engine", value=f"{engine} 0.23.1"),
                Fact(label="Attention", value="FLASH_ATTN"),
                Fact(label="KV cache", value="bfloat16"),
                Fact(label="Parallelism", value="tp2"),
                Fact(label="Speculative decoding", value="unknown", note="the server doesn't say"),
            ),
            "Sampling": (
                Fact(label="Temperature", value="1"),
                Fact(label="top-p, top-k", value="0.95, 64"),
                Fact(label="Token budget", value="65,536"),
                Fact(label="Run seed", value="0"),
            ),
        },
        tasks=tasks,
        command=f"g4eval run {' '.join(shares)} --model {model} --engine {engine} --seed 0",
        updated_at=1_780_000_000.0,
        read_texts=read_texts,
    )
    return replace(whole, **changes)


def three_runs():
    """A reproduction, a smaller model with truncation, and a quantized candidate."""
    return [
        run_view(),
        run_view(
            "gemma-4-e4b-vllm-99ab01ce",
            "google/gemma-4-E4B-it",
            shares={
                "aime26": 0.30,
                "gpqa_diamond": 0.60,
                "livecodebench_v6": 0.51,
                "bbeh_mini": 0.33,
            },
            cut_share=0.12,
        ),
        run_view(
            "gemma-4-31b-nvfp4-vllm-b70e4d12",
            shares={"aime26": 0.87, "gpqa_diamond": 0.84, "livecodebench_v6": 0.76},
            quantization="nvfp4",
        ),
    ]
