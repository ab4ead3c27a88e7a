"""Pages: who holds them, when they come back, what is shared."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch isn't installed: extra gemma")

from g4eval.engines.gemma.config import parse_config  # noqa: E402  after the skip
from g4eval.engines.gemma.kernels.paged_cache import (  # noqa: E402
    PAGE,
    PagedCache,
    Pages,
    page_bytes,
)

WINDOW = 40
CONFIG = parse_config(
    {
        "model_type": "gemma4_text",
        "vocab_size": 300,
        "vocab_size_per_layer_input": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "hidden_size_per_layer_input": 0,
        "sliding_window": WINDOW,
        "max_position_embeddings": 4096,
    },
    where="a test",
)


def make(pages=9, slots=3):
    return PagedCache(
        CONFIG,
        slots=slots,
        tokens=512,
        pages=Pages(sliding=pages, full=pages),
        device=torch.device("cpu"),
        dtype=torch.float32,
        page=16,
    )


def test_a_slot_gets_pages_as_it_grows_and_no_page_twice():
    cache = make()
    cache.reserve(0, 1)
    cache.reserve(1, 33)
    cache.reserve(0, 17)
    held = [*cache.tables[False][0, :2].tolist(), *cache.tables[False][1, :3].tolist()]
    assert len(set(held)) == 5
    assert 0 not in held
    assert cache.free_pages(sliding=False) == 8 - 5
    cache.reserve(0, 32)  # what it has is enough
    assert cache.free_pages(sliding=False) == 8 - 5


def test_with_no_page_left_it_says_so_and_what_was_given_can_be_given_back():
    cache = make(pages=4)
    with pytest.raises(MemoryError):
        cache.reserve(0, 16 * 4)
    cache.release(0)
    assert cache.free_pages(sliding=True) == cache.free_pages(sliding=False) == 3
    cache.reserve(1, 16 * 3)


def test_a_sliding_slot_holds_a_ring_of_pages_however_long_it_grows():
    cache = make(pages=40)
    for position in range(400):
        cache.reserve(0, position + 1)
        cache.leave_behind(0, position)
        visible = range(max(0, position - WINDOW + 1), position + 1)
        assert all(cache.tables[True][0, p // 16] > 0 for p in visible)
        taken = 39 - cache.free_pages(sliding=True)
        assert taken <= WINDOW // 16 + 2
    assert cache.free_pages(sliding=False) == 39 - 25  # full layers forget nothing


def test_shared_pages_stay_until_the_last_slot_lets_go():
    cache = make()
    cache.reserve(0, 40)
    assert cache.share(0, 1, 40) == 32  # whole pages
    assert torch.equal(cache.tables[False][0, :2], cache.tables[False][1, :2])
    cache.reserve(1, 40)
    assert cache.tables[False][0, 2] != cache.tables[False][1, 2]
    cache.release(0)
    assert cache.free_pages(sliding=False) == 8 - 3
    cache.release(1)
    assert cache.free_pages(sliding=False) == 8


def test_a_prefix_that_the_window_has_left_is_not_shared():
    cache = make(pages=20)
    cache.reserve(0, 100)
    cache.leave_behind(0, 99)
    assert cache.share(0, 1, 100) == 0
    assert cache.free_pages(sliding=False) == 19 - 7


def test_a_page_takes_what_its_layers_keys_and_values_take():
    assert page_bytes(CONFIG, 2, sliding=True) == 2 * (2 * 2 * 16 * PAGE * 2)
    assert page_bytes(CONFIG, 2, sliding=False) == 2 * 2 * 32 * PAGE * 2
