"""Continuous batching: tokens that depend on nothing but the request, prefixes computed once."""

from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.gemma.attention import attend_by_products  # noqa: E402
from g4eval.engines.gemma.invariance import is_batch_invariant  # noqa: E402
from g4eval.engines.gemma.linear import BlockLinear  # noqa: E402
from g4eval.engines.gemma.sampling import Sampler  # noqa: E402
from g4eval.engines.gemma.scheduler import Capacity, Generation, Scheduler  # noqa: E402

VARIANTS = ("gemma3", "dense_k_is_v", "ple_shared_kv", "mixture")
ROOMY = Capacity(slots=32, cached_tokens=1_000_000, prefix_bytes=1 << 28)


def never(_):
    return False


def generation(prompt_ids, *, seed=0, tokens=12, temperature=1.0, ends=never):
    # Of 300 tokens 16 are few enough to be looked for in bfloat16 first.
    params = SamplingParams(temperature=temperature, top_k=16, top_p=0.9)
    return Generation(
        prompt_ids=prompt_ids,
        sampler=Sampler(params, seed, prompt_ids),
        max_new_tokens=tokens,
        ends=ends,
    )


def run(scheduler, waiting):
    """Run generations to their end, admitting each as soon as there is room."""
    waiting, done = list(waiting), []
    while waiting or not scheduler.is_idle:
        while waiting and scheduler.admit(waiting[0]):
            waiting.pop(0)
        done += scheduler.step()
    return done


def requests(random_ids, count=16):
    # Lengths over and under the window, one prompt of several chunks, budgets that end unevenly.
    lengths = [3 + 5 * i for i in range(count - 1)] + [600]
    return [(random_ids(n, i), i, 4 + 3 * i) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_request_gets_the_same_tokens_alone_and_among_sixteen(variant, make_tiny, random_ids):
    model = make_tiny(variant, shake=True).load()
    wanted = requests(random_ids)
    together = [generation(ids, seed=seed, tokens=n) for ids, seed, n in wanted]
    run(Scheduler(model, ROOMY), together)
    for batched, (ids, seed, n) in zip(together, wanted, strict=True):
        alone = generation(ids, seed=seed, tokens=n)
        run(Scheduler(model, ROOMY), [alone])
        assert alone.generated == batched.generated
        assert len(alone.generated) == n


def test_joining_late_and_few_slots_change_no_tokens(make_tiny, random_ids):
    model = make_tiny("ple_shared_kv", shake=True).load()
    wanted = requests(random_ids)
    roomy = [generation(ids, seed=seed, tokens=n) for ids, seed, n in wanted]
    tight = [generation(ids, seed=seed, tokens=n) for ids, seed, n in wanted]
    run(Scheduler(model, ROOMY), roomy)
    # Two long requests don't fit side by side, and the cache must grow and be rebuilt.
    run(Scheduler(model, Capacity(slots=3, cached_tokens=1500, prefix_bytes=0)), tight)
    assert [g.generated for g in tight] == [g.generated for g in roomy]


def test_greedy_tokens_are_the_references_best(make_tiny, random_ids):
    tiny = make_tiny("dense_k_is_v", shake=True)
    ids = random_ids(300)
    greedy = generation(ids, tokens=20, temperature=0)
    run(Scheduler(tiny.load(), ROOMY), [greedy])
    reference = tiny.reference_logprobs(ids + greedy.generated)[299:-1]
    chosen = reference[torch.arange(20), torch.tensor(greedy.generated)]
    assert (reference.max(dim=-1).values - chosen).max() < 1e-4


def test_eight_repeats_of_a_prompt_compute_it_once(make_tiny, random_ids):
    model = make_tiny("gemma3").load()
    ids = random_ids(1000)
    rows = []
    hidden = type(model).hidden

    def count(self, batch, cache, **more):
        rows.append(len(batch.token_ids))
        return hidden(self, batch, cache, **more)

    with patch.object(type(model), "hidden", count):
        repeats = [generation(ids, seed=seed, tokens=2) for seed in range(8)]
        run(Scheduler(model, ROOMY), repeats)
    # 1,000 prompt tokens once; each repeat decodes one token (its first comes from the prompt).
    assert sum(rows) == 1000 + 8


def test_a_shared_beginning_is_computed_once(make_tiny, random_ids):
    model = make_tiny("ple_shared_kv", shake=True).load()
    beginning = random_ids(512)
    prompts = [beginning + random_ids(30, seed) for seed in (1, 2)]
    shared = [generation(ids, seed=7) for ids in prompts]
    scheduler = Scheduler(model, ROOMY)
    for one in shared:
        run(scheduler, [one])
    fresh = generation(prompts[1], seed=7)
    run(Scheduler(model, ROOMY), [fresh])
    assert shared[1].generated == fresh.generated


def test_the_prefix_store_stays_within_its_budget(make_tiny, random_ids):
    model = make_tiny("gemma3").load()
    scheduler = Scheduler(model, Capacity(slots=4, cached_tokens=10_000, prefix_bytes=200_000))
    run(scheduler, [generation(random_ids(400, seed), tokens=1) for seed in range(6)])
    store = scheduler._prefixes
    assert 0 < store._used <= 200_000
    assert store._used == sum(chunk.nbytes for chunk in store._chunks.values())


def test_a_stop_ends_one_request_and_no_other(make_tiny, random_ids):
    model = make_tiny("gemma3").load()
    stopping = generation(random_ids(5), tokens=30, ends=lambda ids: len(ids) == 3)
    other = generation(random_ids(9, 1), tokens=6)
    run(Scheduler(model, ROOMY), [stopping, other])
    assert (len(stopping.generated), stopping.stopped) == (3, True)
    assert (len(other.generated), other.stopped) == (6, False)


def test_suppressed_tokens_are_never_drawn(make_tiny, random_ids):
    model = make_tiny("gemma3", shake=True).load()
    free = generation(random_ids(5), tokens=1, temperature=0)
    run(Scheduler(model, ROOMY), [free])
    best = free.generated[0]
    held = generation(random_ids(5), tokens=1, temperature=0)
    run(Scheduler(model, ROOMY, suppressed_ids=[best]), [held])
    assert held.generated[0] != best


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_measured_promise_holds_on_this_machine(variant, make_tiny):
    assert is_batch_invariant(make_tiny(variant, shake=True).load())


def test_the_measurement_sees_a_product_that_depends_on_the_row_count(make_tiny):
    model = make_tiny("gemma3", shake=True).load()
    packed = type(model.blocks[0].mlp.down)
    exact = packed.__call__

    def leaky(self, x):
        return exact(self, x) * (1 + 1e-6 * len(x))

    with patch.object(packed, "__call__", leaky):
        assert not is_batch_invariant(model)


def test_the_measurement_sees_attention_that_depends_on_the_batch(make_tiny):
    model = make_tiny("gemma3", shake=True).load()

    def leaky(query, seen, mask, scale):
        far = 1e-6 * len(query) if mask.shape[-1] > 1000 else 0.0
        return attend_by_products(query, seen, mask, scale) * (1 + far)

    with patch("g4eval.engines.gemma.invariance.attend_by_products", leaky):
        assert not is_batch_invariant(model)


def test_the_fallback_product_is_invariant_too(make_tiny):
    with patch("g4eval.engines.gemma.linear.can_pack", return_value=False):
        model = make_tiny("ple_shared_kv", shake=True).load()
    assert isinstance(model.head.product, BlockLinear)
    assert is_batch_invariant(model)
