"""`g4eval logprobs`: token ids in, log-probabilities out, bad lines refused before loading."""

import json

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.cli.main import cli  # noqa: E402  after the skips
from g4eval.errors import UsageError  # noqa: E402


def run(path, *arguments):
    result = CliRunner().invoke(cli, ["logprobs", str(path), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_gets_one_number_a_token_after_the_first(make_tiny, random_ids, tmp_path):
    tiny = make_tiny("gemma3", shake=True)  # no tokenizer in its folder, and none is needed
    rows = [{"id": 7, "token_ids": random_ids(20)}, {"id": "b", "token_ids": random_ids(2, 1)}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = run(path, "--model", str(tiny.folder), "--set", "engine.memory_gib=1")
    assert [row["id"] for row in scored] == [7, "b"]
    for row, out in zip(rows, scored, strict=True):
        ids = row["token_ids"]
        reference = tiny.reference_logprobs(ids)
        expected = [reference[i, ids[i + 1]].item() for i in range(len(ids) - 1)]
        assert out["logprobs"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"id": 1, "token_ids": [2]}, "two or more whole numbers"),
        ({"id": 1, "token_ids": [2, -1]}, "two or more whole numbers"),
        ({"id": 1, "token_ids": [2, True]}, "two or more whole numbers"),
        ({"id": 1, "token_ids": "abc"}, "two or more whole numbers"),
        ({"token_ids": [2, 3]}, "'id' is missing"),
        ({"id": 1, "tokens": [2, 3]}, "'tokens' is not a key"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line, words, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 0, "token_ids": [2, 3]}\n' + json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=words) as caught:
        run(path, "--model", "./nowhere")
    assert caught.value.where == f"{path}:2"


def test_an_engine_that_cant_score_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("g4eval.cli.logprobs.make_engine", lambda *_: object())
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 0, "token_ids": [2, 3]}\n')
    with pytest.raises(UsageError, match="engine 'fake' can't score tokens"):
        run(path, "--engine", "fake")
