"""Every kernels' implementation against the reference, on random models of every variant.

Where a GPU is, `cuda` runs on it; elsewhere Triton's interpreter runs the same programs on the CPU,
in float32 (it has no bfloat16 products).
"""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch isn't installed: extra gemma")
pytest.importorskip("triton", reason="Triton isn't installed; it is on Linux with a CUDA PyTorch")

ON_CARD = torch.cuda.is_available()

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.gemma import head, quantized, weights  # noqa: E402
from g4eval.engines.gemma.batch import DecodeRow, PromptPart, make_batch  # noqa: E402
from g4eval.engines.gemma.cache import KVCache  # noqa: E402
from g4eval.engines.gemma.config import parse_config  # noqa: E402
from g4eval.engines.gemma.kernels.base import Draws  # noqa: E402
from g4eval.engines.gemma.kernels.cuda import CudaKernels  # noqa: E402
from g4eval.engines.gemma.kernels.decoding import Decoder, Drawing  # noqa: E402
from g4eval.engines.gemma.kernels.forward import hidden  # noqa: E402
from g4eval.engines.gemma.kernels.launching import Launching  # noqa: E402
from g4eval.engines.gemma.kernels.paged_cache import PagedCache, Pages  # noqa: E402
from g4eval.engines.gemma.kernels.parts import for_cuda  # noqa: E402
from g4eval.engines.gemma.kernels.reference import ReferenceKernels  # noqa: E402
from g4eval.engines.gemma.linear import PlainLinear  # noqa: E402
from g4eval.engines.gemma.random_source import RandomSource  # noqa: E402
from g4eval.engines.gemma.sampling import Sampler  # noqa: E402

DEVICE = torch.device("cuda" if ON_CARD else "cpu")
WINDOW, VOCABULARY, SLOTS = 7, 300, 4
S, F = "sliding_attention", "full_attention"
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": WINDOW,
    "max_position_embeddings": 4096,
}
GEMMA4 = {
    **COMMON,
    "model_type": "gemma4_text",
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 32,
    "num_hidden_layers": 2,
    "layer_types": [S, F],
}
K_IS_V = {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "gemma3": {
        **COMMON,
        "model_type": "gemma3_text",
        "num_hidden_layers": 2,
        "layer_types": [S, F],
        "query_pre_attn_scalar": 16,
    },
    "dense_k_is_v": {**GEMMA4, **K_IS_V},
    "ple_shared_kv": {
        **GEMMA4,
        "num_hidden_layers": 4,
        "layer_types": [S, F] * 2,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 16,
    },
    "mixture": {
        **GEMMA4,
        **K_IS_V,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 24,
    },
}
# The interpreter takes minutes for a sort, and its sums depend on a row's place.
on_card = pytest.mark.skipif(not ON_CARD, reason="Triton's interpreter doesn't serve here")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model(monkeypatch):
    """A random model with weights as they are stored, on the CPU too."""
    for module in (weights, quantized, head):
        monkeypatch.setattr(module, "make_linear", lambda w: PlainLinear(torch.cat(list(w))))
    for module in (weights, head):
        monkeypatch.setattr(module, "is_screened", lambda *_: False)

    def make(variant, dtype=torch.float32, **changed):
        config = parse_config({**VARIANTS[variant], **changed}, where=variant)
        source = RandomSource(config, seed=1, device=DEVICE, dtype=torch.bfloat16)
        return weights.load_model(config, source, DEVICE, dtype)

    return make


def paged(model, pages=12):
    return PagedCache(
        model.config,
        slots=SLOTS,
        tokens=64,
        pages=Pages(sliding=pages, full=pages),
        device=DEVICE,
        dtype=model.dtype,
        page=16,
    )


def random_ids(count, seed):
    made = torch.Generator().manual_seed(seed)
    return torch.randint(5, VOCABULARY, (count,), generator=made).tolist()


# Prompts of one page and two, in one pass and two, then single tokens beside another's prompt.
PASSES = [
    ([], [PromptPart(0, 0, random_ids(18, 0)), PromptPart(2, 0, random_ids(3, 1))]),
    ([DecodeRow(0, 18, 7)], [PromptPart(2, 3, random_ids(9, 2)), PromptPart(1, 0, [9])]),
    ([DecodeRow(1, 1, 11)], []),
    ([DecodeRow(0, 19, 8), DecodeRow(1, 2, 12), DecodeRow(2, 12, 13)], []),
]


def run_passes(model, kernels, cache):
    found = []
    with torch.inference_mode():
        for decode, parts in PASSES:
            if isinstance(cache, PagedCache):
                for row in decode:
                    cache.reserve(row.slot, row.position + 1)
                for part in parts:
                    cache.reserve(part.slot, part.start + len(part.token_ids))
            batch = make_batch(decode, parts, DEVICE)
            if kernels is None:
                found.append(model.hidden(batch, cache, ends_only=True))
            else:
                found.append(hidden(model, kernels, batch, cache, ends_only=True))
    return found


def slots_for(model):
    return KVCache(model.config, SLOTS, DEVICE, model.dtype, 64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pass_through_the_seam_is_the_model_s_own_bit_for_bit(variant, make_model):
    model = make_model(variant)
    own = run_passes(model, None, slots_for(model))
    through = run_passes(model, ReferenceKernels(), slots_for(model))
    assert all(torch.equal(a, b) for a, b in zip(own, through, strict=True))


FAST = [(variant, False) for variant in VARIANTS] + [("mixture", True)]


@pytest.mark.parametrize(("variant", "invariant"), FAST)
def test_cuda_gives_the_logits_of_the_reference(variant, invariant, make_model):
    model = make_model(variant)
    launching = Launching(batch_invariant=invariant)
    fast = for_cuda(model, launching)
    expected = run_passes(model, ReferenceKernels(), slots_for(model))
    found = run_passes(fast, CudaKernels(launching), paged(model))
    for reference, own in zip(expected, found, strict=True):
        assert (model.head(reference) - fast.head(own)).abs().max() < 1e-4


@pytest.mark.gpu
@on_card
@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_rounds_no_worse_than_the_reference_does(variant, make_model):
    exact, rounded = make_model(variant, torch.float32), make_model(variant, torch.bfloat16)
    fast = for_cuda(rounded, Launching())
    truth = run_passes(exact, ReferenceKernels(), slots_for(exact))
    reference = run_passes(rounded, ReferenceKernels(), slots_for(rounded))
    own = run_passes(fast, CudaKernels(), paged(rounded))
    errors = [
        sum(((a.float() - b) ** 2).sum().item() for a, b in zip(found, truth, strict=True)) ** 0.5
        for found in (reference, own)
    ]
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.gpu
@on_card
def test_a_row_s_bits_do_not_depend_on_its_neighbours(make_model):
    model = make_model("mixture")
    launching = Launching(batch_invariant=True)
    fast, kernels = for_cuda(model, launching), CudaKernels(launching)
    prompt = random_ids(18, 5)

    def last_rows(neighbours):
        cache = paged(model)
        parts = [PromptPart(i + 1, 0, random_ids(4 + i, i)) for i in range(neighbours)]
        parts.append(PromptPart(0, 0, prompt))
        for part in parts:
            cache.reserve(part.slot, 20)
        decode = [DecodeRow(0, 18, 7)]
        decode += [DecodeRow(p.slot, len(p.token_ids), 9) for p in parts[:-1]]
        with torch.inference_mode():
            first = hidden(fast, kernels, make_batch([], parts, DEVICE), cache, ends_only=True)
            then = hidden(fast, kernels, make_batch(decode, [], DEVICE), cache)
            return fast.head(first[-1:]), fast.head(then[:1])

    for alone, among in zip(last_rows(0), last_rows(SLOTS - 1), strict=True):
        assert torch.equal(alone, among)


DRAWN = [
    SamplingParams(max_new_tokens=1, temperature=0.0),
    SamplingParams(max_new_tokens=1, temperature=1.0, top_k=64, top_p=0.95),
    SamplingParams(max_new_tokens=1, temperature=0.3, top_k=5, top_p=1.0),
    SamplingParams(max_new_tokens=1, temperature=1.7, top_k=64, top_p=0.1, min_p=0.2),
    SamplingParams(max_new_tokens=1, temperature=1.0, top_k=1),
]


def draws_of(samplers, numbers):
    def column(values, dtype):
        return torch.tensor(values, dtype=dtype, device=DEVICE)

    params = [sampler.params for sampler in samplers]
    return Draws(
        temperature=column([p.temperature for p in params], torch.float64),
        top_k=column([max(1, p.top_k) for p in params], torch.int32),
        top_p=column([p.top_p for p in params], torch.float64),
        min_p=column([p.min_p for p in params], torch.float64),
        uniform=column(numbers, torch.float64),
    )


@pytest.mark.parametrize(
    "kernels",
    [
        pytest.param(ReferenceKernels(), id="reference"),
        pytest.param(CudaKernels(), id="cuda", marks=[pytest.mark.gpu, on_card]),
    ],
)
@pytest.mark.parametrize("vocabulary", [300, 5000 if not ON_CARD else 262_144])
def test_a_seed_draws_the_tokens_that_the_sampler_on_the_host_draws(kernels, vocabulary):
    made = torch.Generator().manual_seed(3)
    for step in range(3):
        samplers = [Sampler(params, seed, []) for seed, params in enumerate(DRAWN)]
        logits = torch.randn(len(DRAWN), vocabulary, generator=made) * (1 + 3 * step)
        logits[:, 17] = logits[:, 40] = logits.max() if step == 2 else 0.5  # equal ones
        numbers = [
            torch.rand(1, generator=torch.Generator().manual_seed(s.seed), dtype=torch.float64)
            for s in samplers
        ]
        expected = []
        for row, sampler in zip(logits, samplers, strict=True):
            ordered = row.sort(descending=True, stable=True)
            kept = max(1, sampler.params.top_k)
            expected.append(sampler.draw(ordered.values[:kept], ordered.indices[:kept]))
        found = kernels.sample(logits.to(DEVICE), draws_of(samplers, [float(n) for n in numbers]))
        assert found.tolist() == expected


@pytest.mark.gpu
@on_card
@pytest.mark.parametrize("equal", [63, 1500])
def test_more_equal_logits_than_there_is_room_for_are_drawn_from_by_their_ids(equal):
    logits = torch.full((1, 6000), -9.0)
    logits[0, 1000 : 1000 + equal] = 2.0
    sampler = Sampler(DRAWN[1], 0, [])
    for number in (0.0, 0.3, 0.999):
        draws = draws_of([sampler], [number])
        found = CudaKernels().sample(logits.to(DEVICE), draws)
        assert found.tolist() == ReferenceKernels().sample(logits.to(DEVICE), draws).tolist()


@pytest.mark.gpu
@on_card
def test_decoding_goes_on_by_itself_and_gives_each_seed_its_tokens(make_model):
    model = make_model("dense_k_is_v")
    launching = Launching()
    fast, prompts = for_cuda(model, launching), [random_ids(5, 8), random_ids(17, 9)]

    def generate(wanted):
        decoder = Decoder(fast, CudaKernels(launching), paged(model), graphs=ON_CARD)
        parts = []
        for slot in wanted:
            decoder.cache.reserve(slot, len(prompts[slot]) + 4)
            decoder.slots.begin(slot, len(prompts[slot]), Drawing(seed=slot))
            parts.append(PromptPart(slot, 0, prompts[slot]))
        tokens = [decoder.prefill(parts, range(len(parts))).tolist()]
        tokens += [decoder.step(wanted, 24).tolist() for _ in range(3)]
        return list(map(list, zip(*tokens, strict=True)))

    together = generate([0, 1])
    assert together == [generate([0])[0], generate([1])[0]]
    for slot, said in enumerate(together):
        rows = teacher_forced(model, [*prompts[slot], *said])[-len(said) - 1 : -1]
        sampler = Sampler(SamplingParams(max_new_tokens=4, temperature=1.0), slot, [])
        ordered = [row.sort(descending=True, stable=True) for row in rows.cpu()]
        assert said == [sampler.draw(o.values[:64], o.indices[:64]) for o in ordered]


def teacher_forced(model, token_ids):
    """Logits after each token, by the reference in one pass."""
    with torch.inference_mode():
        batch = make_batch([], [PromptPart(0, 0, token_ids)], DEVICE)
        return model.head(model.hidden(batch, slots_for(model)))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's NumPy
def test_no_value_reaches_a_row_that_may_not_see_it(make_model):
    """Pages that others left full of infinities change nothing."""
    model = make_model("dense_k_is_v")
    fast, kernels = for_cuda(model, Launching()), CudaKernels()
    clean, dirty = paged(model), paged(model)
    for layer in model.config.owners:
        for values in dirty.layer(layer):
            values.fill_(math.inf)
    found = [run_passes(fast, kernels, cache) for cache in (clean, dirty)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
