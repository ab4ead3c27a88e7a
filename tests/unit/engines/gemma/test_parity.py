"""Our decoder against transformers, against itself step by step, and in ragged batches."""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import HealthCheck, given, settings  # noqa: E402  after the skips
from hypothesis import strategies as st  # noqa: E402

from g4eval.engines.gemma.batch import DecodeRow, PromptPart, make_batch  # noqa: E402
from g4eval.engines.gemma.cache import KVCache  # noqa: E402

CPU = torch.device("cpu")
VARIANTS = (
    "gemma3",
    "gemma3_linear_rope",
    "dense_k_is_v",
    "ple_shared_kv",
    "ple_double_wide",
    "mixture",
    "unified",
)
PROMPT_TOKENS = 40  # the window is 7: longer than two windows, and no multiple of it


def logprobs(model, token_ids, *, chunks=(), decode_from=None):
    """Log-probabilities [T, V], the prompt cut at `chunks`, decoded one by one from a place on."""
    device = model.device
    cache = KVCache(model.config, 2, device, model.dtype, len(token_ids))
    stop = len(token_ids) if decode_from is None else decode_from
    edges = [0, *chunks, stop]
    rows = []
    with torch.inference_mode():
        for start, end in pairwise(edges):
            part = PromptPart(1, start, token_ids[start:end])
            rows.append(model.hidden(make_batch([], [part], device), cache))
        for place in range(stop, len(token_ids)):
            row = DecodeRow(1, place, token_ids[place])
            rows.append(model.hidden(make_batch([row], [], device), cache))
        return torch.log_softmax(model.head(torch.cat(rows)), dim=-1).cpu()


def largest_difference(left, right):
    return (left - right).abs().max().item()


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_probabilities_are_those_of_transformers(variant, device, make_tiny, random_ids):
    tiny = make_tiny(variant)
    ids = random_ids(PROMPT_TOKENS)
    assert largest_difference(logprobs(tiny.load(device), ids), tiny.reference_logprobs(ids)) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_random_norms_and_scales_they_still_are(variant, device, make_tiny, random_ids):
    tiny = make_tiny(variant, shake=True)
    ids = random_ids(PROMPT_TOKENS)
    assert largest_difference(logprobs(tiny.load(device), ids), tiny.reference_logprobs(ids)) < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_and_single_steps_give_what_one_pass_gives(variant, device, make_tiny, random_ids):
    model = make_tiny(variant).load(device)
    ids = random_ids(PROMPT_TOKENS)
    whole = logprobs(model, ids)
    stepped = logprobs(model, ids, chunks=(9, 12), decode_from=21)
    assert largest_difference(whole, stepped) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ends_alone_are_those_of_the_whole_pass(variant, make_tiny, random_ids):
    model = make_tiny(variant, shake=True).load()
    first, second = random_ids(31, 1), random_ids(12, 2)
    steps = [  # prompts beside each other, a later chunk beside a decoded token, both decoded
        make_batch([], [PromptPart(0, 0, first[:20]), PromptPart(1, 0, second)], CPU),
        make_batch([DecodeRow(1, 12, 5)], [PromptPart(0, 20, first[20:])], CPU),
        make_batch([DecodeRow(0, 31, 6), DecodeRow(1, 13, 7)], [], CPU),
    ]
    caches = [KVCache(model.config, 2, CPU, torch.float32, 64) for _ in range(2)]
    with torch.inference_mode():
        for batch, ends in zip(steps, ([19, 31], [0, 11], [0, 1]), strict=True):
            whole = model.hidden(batch, caches[0])[ends]
            assert largest_difference(model.hidden(batch, caches[1], ends_only=True), whole) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_ragged_batch_gives_each_prompt_the_bits_it_gets_alone(variant, make_tiny, random_ids):
    model = make_tiny(variant).load()
    prompts = [random_ids(length, seed) for seed, length in enumerate((3, 29, 7, 14))]
    cache = KVCache(model.config, 4, CPU, torch.float32, 32)
    parts = [PromptPart(slot, 0, ids) for slot, ids in enumerate(prompts)]
    with torch.inference_mode():
        together = model.hidden(make_batch([], parts, CPU), cache)
        at = 0
        for ids in prompts:
            own = KVCache(model.config, 1, CPU, torch.float32, 32)
            alone = model.hidden(make_batch([], [PromptPart(0, 0, ids)], CPU), own)
            assert torch.equal(together[at : at + len(ids)], alone)
            at += len(ids)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_are_those_of_transformers(variant, device, make_tiny, random_ids):
    tiny = make_tiny(variant, shake=True)
    model = tiny.load(device)
    ids = random_ids(11)
    cache = KVCache(model.config, 1, device, torch.float32, 11 + 64)
    with torch.inference_mode():
        rows = model.hidden(make_batch([], [PromptPart(0, 0, ids)], device), cache)
        token = int(model.head(rows[-1:]).argmax())
        said = [token]
        for place in range(len(ids), len(ids) + 63):
            row = model.hidden(make_batch([DecodeRow(0, place, token)], [], device), cache)
            token = int(model.head(row).argmax())
            said.append(token)
    # Teacher-forced: each token is the reference's best, or as good as it to rounding.
    reference = tiny.reference_logprobs(ids + said)[len(ids) - 1 : -1]
    best = reference.max(dim=-1).values
    chosen = reference[torch.arange(64), torch.tensor(said)]
    assert largest_difference(best, chosen) < 1e-4


@st.composite
def small_configs(draw):
    """A random Gemma 4 config, every switch drawn."""
    layers = draw(st.integers(2, 6))
    kinds = draw(st.lists(st.booleans(), min_size=layers, max_size=layers))
    kinds[-1] = False
    types = ["sliding_attention" if sliding else "full_attention" for sliding in kinds]
    owners = layers
    if draw(st.booleans()):
        # As many shared layers as leave an owner of each kind they need.
        owners = next(n for n in range(1, layers + 1) if set(types[n:]) <= set(types[:n]))
    kv_heads = draw(st.sampled_from([1, 2, 4]))
    k_is_v = draw(st.booleans())
    mixture = draw(st.booleans())
    return {
        "vocab_size": 300,
        "vocab_size_per_layer_input": 300,
        "hidden_size": draw(st.sampled_from([32, 48])),
        "intermediate_size": draw(st.sampled_from([40, 64])),
        "num_hidden_layers": layers,
        "layer_types": types,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "head_dim": draw(st.sampled_from([8, 16])),
        "global_head_dim": draw(st.sampled_from([16, 32])),
        "num_global_key_value_heads": draw(st.sampled_from([None, 1, 2])) if k_is_v else None,
        "attention_k_eq_v": k_is_v,
        "sliding_window": draw(st.integers(1, 20)),
        "num_kv_shared_layers": layers - owners,
        "use_double_wide_mlp": draw(st.booleans()),
        # transformers can't run shared layers without per-layer inputs; no checkpoint has them so.
        "hidden_size_per_layer_input": 8 if owners < layers else draw(st.sampled_from([0, 8])),
        "final_logit_softcapping": draw(st.sampled_from([None, 30.0])),
        "enable_moe_block": mixture,
        "num_experts": 6 if mixture else None,
        "top_k_experts": draw(st.integers(1, 6)) if mixture else None,
        "moe_intermediate_size": 12 if mixture else None,
        "max_position_embeddings": 512,
    }


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=small_configs(), seed=st.integers(0, 99), length=st.integers(1, 30))
def test_any_small_config_agrees_with_transformers(
    values, seed, length, device, make_tiny, random_ids
):
    tiny = make_tiny("any", values, seed=seed, shake=True)
    ids = random_ids(length, seed)
    assert largest_difference(logprobs(tiny.load(device), ids), tiny.reference_logprobs(ids)) < 1e-4
