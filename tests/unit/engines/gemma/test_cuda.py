"""What is left to see on a GPU, beside the tests that run on each device."""

import asyncio

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.base import EngineConfig  # noqa: E402
from g4eval.engines.gemma.engine import GemmaEngine  # noqa: E402
from g4eval.engines.gemma.moe import Router  # noqa: E402
from g4eval.engines.gemma.sampling import Sampler  # noqa: E402
from g4eval.engines.gemma.scheduler import Capacity, Generation, Scheduler  # noqa: E402
from g4eval.engines.gemma.scoring import log_probability_rows  # noqa: E402
from g4eval.records import Chat, Message, Request  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]
CUDA = torch.device("cuda")
VARIANTS = ("gemma3", "dense_k_is_v", "ple_shared_kv", "ple_double_wide", "mixture", "unified")
ROOMY = Capacity(slots=32, cached_tokens=1_000_000, prefix_bytes=1 << 28)


def rows_of(model, token_ids):
    return torch.cat(list(log_probability_rows(model, token_ids))).cpu()


def allocated():
    torch._C._cuda_clearCublasWorkspaces()  # 32 MiB a thread that multiplied
    return torch.cuda.memory_allocated()


def greedy(prompt_ids, tokens):
    return Generation(
        prompt_ids=prompt_ids,
        sampler=Sampler(SamplingParams(temperature=0), 0, prompt_ids),
        max_new_tokens=tokens,
        ends=lambda _: False,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_of_a_batch_are_the_best_ones_of_the_cpu(variant, make_tiny, random_ids):
    tiny = make_tiny(variant, shake=True)
    generations = [greedy(random_ids(3 + 20 * i, i), 8 + i) for i in range(16)]
    generations.append(greedy(random_ids(600, 16), 8))  # a prompt of several chunks
    scheduler = Scheduler(tiny.load(CUDA), ROOMY)
    for generation in generations:
        assert scheduler.admit(generation)
    while not scheduler.is_idle:
        scheduler.step()
    on_cpu = tiny.load()
    for generation in generations:
        said = generation.generated
        assert len(said) == generation.max_new_tokens
        rows = rows_of(on_cpu, [*generation.prompt_ids, *said])[-len(said) - 1 : -1]
        chosen = rows[torch.arange(len(said)), torch.tensor(said)]
        assert (rows.max(dim=-1).values - chosen).max() < 1e-4  # as good as the best, to rounding


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_stays_as_near_as_its_rounding_allows(variant, make_tiny, random_ids, monkeypatch):
    tiny = make_tiny(variant, shake=True)
    ids = random_ids(100)
    picked = record_experts(monkeypatch)
    exact = rows_of(tiny.load(), ids)
    experts = picked.copy()
    picked.clear()
    rounded = rows_of(tiny.load(CUDA, torch.bfloat16), ids)
    divergence = (exact.exp() * (exact - rounded)).sum(dim=-1)
    assert 0 < divergence.mean() < (2e-3 if variant == "mixture" else 1e-3)
    if variant == "mixture":
        # Where experts are near each other, rounding picks another one; elsewhere it costs no more
        # than in a dense model.
        same = (torch.stack(experts) == torch.stack(picked)).all(dim=-1).all(dim=0)
        assert 0 < same.sum() < len(ids)
        assert 0 < divergence[same].mean() < 1e-3


def record_experts(monkeypatch):
    """Return a list that gets the experts each layer's router chooses, [R, active], sorted."""
    picked = []
    route = Router.__call__

    def recorded(router, x):
        weights, chosen = route(router, x)
        picked.append(chosen.sort(dim=-1).values.cpu())
        return weights, chosen

    monkeypatch.setattr(Router, "__call__", recorded)
    return picked


def test_the_engine_says_where_it_runs_and_gives_the_memory_back(make_tiny, add_tokenizer):
    tiny = make_tiny("ple_shared_kv", shake=True)
    add_tokenizer(tiny.folder)
    request = Request(
        key="1",
        task_id="t",
        task_version=1,
        sample_id="s",
        repeat=0,
        prompt=Chat((Message(role="user", content="Hello"),)),
        sampling=SamplingParams(max_new_tokens=8),
        seed=1,
    )

    async def run():
        engine = GemmaEngine.configure(EngineConfig(model=str(tiny.folder)))
        async with engine:
            done = [await engine.answer(request)]
            return engine.describe(), done, torch.cuda.memory_allocated()

    before = allocated()
    facts, (completion,), during = asyncio.run(run())
    assert facts.other["device"] == "cuda"
    assert facts.dtype == facts.kv_cache_dtype == "bfloat16"
    assert facts.operation["gpus"]
    assert facts.operation["gpu_driver"] != "none"
    assert facts.operation["batch_invariance"] == "not promised"
    assert 0 < completion.completion_tokens <= 8
    assert before == allocated() < during
