"""Vocabularies to tokenizers, and where a completion ends."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.engines.gemma.stopping import StopRule
from g4eval.engines.gemma.tokenizer import _split_merge, merges_from_scores


def test_merges_follow_the_scores_of_what_they_make():
    tokens = ["a", "b", "c", "ab", "bc", "abc", "<x>"]
    scores = [0, 0, 0, -2, -1, -3, 0]
    kinds = [1, 1, 1, 1, 1, 1, 3]
    # bc before ab; abc splits into a+bc and ab+c; a control token is no merge.
    assert merges_from_scores(tokens, scores, kinds) == [
        ("b", "c"),
        ("a", "b"),
        ("a", "bc"),
        ("ab", "c"),
    ]


def test_a_merge_is_cut_at_the_space_between_its_sides():
    assert _split_merge("▁t he") == ("▁t", "he")
    assert _split_merge("  a") == (" ", "a")


@pytest.fixture
def codec(make_tiny, add_tokenizer):
    tiny = make_tiny("gemma3")
    add_tokenizer(tiny.folder)
    return tiny.open().codec


@pytest.mark.parametrize("text", ["plain", "two  spaces\n\n", "日本 🤔", "<bos>x<turn|>", "", "▲"])
def test_text_survives_the_way_there_and_back(text, codec):
    assert codec.decode(codec.encode(text)) == text


def test_a_stop_id_ends_it_and_is_left_out_of_the_text(codec):
    rule = StopRule(codec, frozenset({6}), ())
    ids = codec.encode("yes")
    assert not rule.ends(ids)
    assert rule.ends([*ids, 6])
    assert rule.text_of([*ids, 6]) == "yes"
    assert rule.text_of(ids) == "yes"


def test_a_stop_text_ends_it_as_soon_as_it_is_whole(codec):
    rule = StopRule(codec, frozenset(), ("\nProblem:", "日本"))
    ids = codec.encode("42\nProblem: what")
    ends = [rule.ends(ids[: i + 1]) for i in range(len(ids))]
    assert ends.index(True) == len("42\nProblem:") - 1
    assert rule.text_of(ids) == "42"
    assert rule.ends(codec.encode("x日本"))
    assert rule.text_of(codec.encode("a日本b\nProblem:")) == "a"
