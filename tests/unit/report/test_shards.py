import base64
import json

import pytest

from g4eval.report.shards import script_call, write_shards
from g4eval.report.views import JudgedTest, RepeatTexts, SampleTexts
from g4eval.store.schema import pack_text, unpack_text

HOSTILE = "</script><script>alert(1)</script>\u2028\0\u202e \ud800 \"'`${x}` \\u0041"


def read_shard(path):
    """What a shard hands to the page, by the name it is handed over under."""
    text = path.read_bytes().decode("ascii")
    assert text.startswith("g4eval.receive(")
    assert text.endswith(");\n")
    name, _, value = text.removeprefix("g4eval.receive(")[:-3].partition(",")
    return json.loads(name), json.loads(value)


def sample(sample_id, text="x", **changes):
    texts = RepeatTexts(repeat=0, prompt=pack_text("p"), text=pack_text(text), **changes)
    return SampleTexts(sample_id=sample_id, target=7, repeats=(texts,))


def test_a_text_comes_out_as_it_went_in_whatever_it_holds(tmp_path):
    write_shards([sample("s", HOSTILE, extraction=HOSTILE)], tmp_path, "t")
    name, samples = read_shard(tmp_path / "t-0.js")
    (entry,) = samples["s"]["repeats"]
    assert name == "t-0"
    assert unpack_text(base64.b64decode(entry["text"])) == HOSTILE
    assert entry["extraction"] == HOSTILE


def test_no_text_of_a_model_stands_in_a_shard_unpacked(tmp_path):
    write_shards([sample("s", "<script>alert(1)</script>" * 50)], tmp_path, "t")
    assert b"<script" not in (tmp_path / "t-0.js").read_bytes()


def test_samples_are_spread_over_shards_and_never_split(tmp_path):
    shard_of = write_shards(map(sample, "abcde"), tmp_path, "t", shard_bytes=1)
    assert shard_of == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert list(read_shard(tmp_path / "t-3.js")[1]) == ["d"]
    assert write_shards(map(sample, "abcde"), tmp_path, "u") == dict.fromkeys("abcde", 0)


def test_a_prompt_that_repeats_share_stands_once(tmp_path):
    frames = [pack_text("order ABCD"), pack_text("order BADC"), pack_text("order ABCD")]
    repeats = tuple(RepeatTexts(repeat=i, prompt=frame) for i, frame in enumerate(frames))
    write_shards([SampleTexts(sample_id="s", repeats=repeats)], tmp_path, "t")
    whole = read_shard(tmp_path / "t-0.js")[1]["s"]
    assert [entry["prompt"] for entry in whole["repeats"]] == [0, 1, 0]
    assert len(whole["prompts"]) == 2


def test_tests_of_a_program_keep_what_is_unknown_as_null(tmp_path):
    judged = (JudgedTest(verdict="WA", input="1\n", expected="2", got=None),)
    write_shards([sample("s", tests=judged)], tmp_path, "t")
    (entry,) = read_shard(tmp_path / "t-0.js")[1]["s"]["repeats"]
    assert entry["tests"] == [["WA", "1\n", "2", None]]


def test_no_sample_writes_no_shard(tmp_path):
    assert write_shards([], tmp_path, "t") == {}
    assert list(tmp_path.iterdir()) == []


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shards(map(sample, "xyz"), tmp_path / name, "t")
    assert (tmp_path / "a/t-0.js").read_bytes() == (tmp_path / "b/t-0.js").read_bytes()


def test_a_value_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_call("name", float("nan"))
