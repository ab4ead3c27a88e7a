"""The output head: what is found by way of bfloat16 is what the whole float32 head gives."""

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402  after the skip
from hypothesis import strategies as st  # noqa: E402

from g4eval.engines.gemma.head import MOST_CANDIDATES, Head, Screen, top_of  # noqa: E402
from g4eval.engines.gemma.linear import can_pack  # noqa: E402

VOCABULARY = 8192 + 64
NONE = torch.tensor([], dtype=torch.long)

screens = pytest.mark.skipif(
    not (can_pack() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="oneDNN multiplies no bfloat16 on this processor",
)


def heads(weight, softcap=None):
    """The same head with a screen and without."""
    return (
        Head(weight, torch.float32, softcap, screened=True),
        Head(weight, torch.float32, softcap, screened=False),
    )


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same_top(screened, whole, hidden, count, banned=NONE):
    """Same logits to the rounding of their sums; same ids where no other logit is as near."""
    values, ids = screened.top(hidden, count, banned)
    expected, expected_ids = whole.top(hidden, count, banned)
    near = 1e-5 * (1 + expected.abs().amax())
    assert float((values - expected).abs().max()) <= near
    alone = torch.ones_like(expected, dtype=torch.bool)
    gaps = expected[:, :-1] - expected[:, 1:] > 2 * near
    alone[:, :-1] &= gaps
    alone[:, 1:] &= gaps
    alone[:, -1] = False  # the next one, left out, may be as near
    assert torch.equal(ids[alone], expected_ids[alone])
    if count == 1:
        assert torch.equal(ids, expected_ids)


@pytest.mark.parametrize("count", [1, 64, 300])
def test_the_search_by_blocks_finds_what_a_full_search_finds(count):
    logits = draw(2, 3, 512 * 200)
    values, token_ids = top_of(logits, count)
    expected = torch.topk(logits, count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(token_ids, expected.indices)


@screens
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(1, 5),
    count=st.sampled_from([1, 2, 20, 32]),
    outlier=st.sampled_from([1.0, 30.0, 1000.0]),
    spread=st.sampled_from([0.0, 0.5]),
    stored=st.sampled_from([torch.float32, torch.bfloat16]),
    softcap=st.sampled_from([None, 30.0]),
)
def test_the_screen_finds_what_the_whole_head_finds(
    seed, rows, count, outlier, spread, stored, softcap
):
    weight = draw(seed, VOCABULARY, 48) * torch.exp(spread * draw(seed + 1, VOCABULARY, 1))
    hidden = draw(seed + 2, rows, 48)
    hidden[:, 7] *= outlier  # as in real models: a few values hold most of a row's size
    screened, whole = heads(weight.to(stored), softcap)
    if softcap is not None:
        hidden *= 20 / float(whole.product(hidden).abs().amax())  # where the cap still tells apart
    assert_same_top(screened, whole, hidden, count)


@screens
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_tokens_that_bfloat16_ranks_wrongly_are_ranked_rightly(stored):
    # Two large values that cancel leave small logits with the rounding errors of large ones.
    weight = draw(2, VOCABULARY, 64)
    weight[:, 0] = 1 + torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(3))
    weight[:, 1] = -weight[:, 0] / 0.7
    hidden = draw(1, 8, 64) / 8
    hidden[:, 0] = 100 + torch.rand(8, generator=torch.Generator().manual_seed(4))
    hidden[:, 1] = hidden[:, 0] * 0.7
    weight = weight.to(stored)
    screened, whole = heads(weight)
    best = whole.top(hidden, 1, NONE)[1][:, 0]
    rough = hidden.bfloat16().float() @ weight.bfloat16().float().T
    assert not torch.equal(rough.argmax(dim=1), best)  # or this shows nothing
    assert torch.equal(screened.top(hidden, 1, NONE)[1][:, 0], best)
    assert_same_top(screened, whole, hidden, 20)


@screens
@pytest.mark.parametrize("rounded", ["weights", "rows"])
def test_the_bound_holds_where_rounding_does_its_worst(rounded):
    # One side is as bfloat16 has it, and lies in the direction in which the other was moved.
    free = draw(12, 512, 64)
    moved = free - free.bfloat16().float()
    along = (moved / moved.norm(dim=1, keepdim=True) * 9).bfloat16().float()
    weight, hidden = (free, along) if rounded == "weights" else (along, free)
    exact = hidden.double() @ weight.double().T
    rough = hidden.bfloat16().double() @ weight.bfloat16().double().T
    error, bound = (exact - rough).abs().amax(dim=1), Screen(weight)._error(hidden)
    assert bool((error <= bound).all())
    assert float((error / bound).max()) > 0.9


@screens
def test_of_equal_tokens_the_first_comes_first():
    weight = draw(3, VOCABULARY, 32)
    weight[5000] = weight[17]
    screened, _ = heads(weight)
    values, ids = screened.top(weight[17:18], 2, NONE)
    assert ids.tolist() == [[17, 5000]]
    assert values[0, 0] == values[0, 1]


@screens
def test_a_row_gives_the_same_bits_whatever_stands_beside_it():
    screened, _ = heads(draw(4, VOCABULARY, 64))
    hidden = draw(5, 16, 64)
    hidden[3] = 0  # a neighbour with no best token
    values, ids = screened.top(hidden, 20, NONE)
    for row in (0, 7, 15):
        alone = screened.top(hidden[row : row + 1], 20, NONE)
        assert torch.equal(alone[0][0], values[row])
        assert torch.equal(alone[1][0], ids[row])


@screens
def test_a_flat_row_goes_through_the_whole_head():
    assert VOCABULARY > MOST_CANDIDATES
    screened, whole = heads(draw(6, VOCABULARY, 64))
    hidden = draw(7, 2, 64)
    hidden[1] *= 0
    values, ids = screened.top(hidden, 3, NONE)
    assert values[1].tolist() == [0, 0, 0]
    assert torch.equal(ids[0], whole.top(hidden, 3, NONE)[1][0])


@screens
def test_a_row_of_nan_spoils_no_other():
    screened, whole = heads(draw(8, VOCABULARY, 64))
    hidden = draw(9, 2, 64)
    hidden[0] = math.nan
    values, ids = screened.top(hidden, 3, NONE)
    assert torch.equal(ids[1], whole.top(hidden[1:], 3, NONE)[1][0])
    assert bool(values[0].isnan().all())


@screens
def test_banned_tokens_are_not_found():
    screened, whole = heads(draw(10, VOCABULARY, 64))
    hidden = draw(11, 4, 64)
    banned = screened.top(hidden, 2, NONE)[1].flatten().unique()
    assert_same_top(screened, whole, hidden, 5, banned)
    assert not set(screened.top(hidden, 5, banned)[1].flatten().tolist()) & set(banned.tolist())
