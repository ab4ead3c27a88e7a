"""Nothing of a gated task's questions, options and thoughts leaves the store of completions.

Every completion of these runs quotes its question, its options and a thought, so whatever is
written carelessly would show them.
"""

import json
import logging
import sqlite3
import sys
from pathlib import Path

import pytest

from g4eval.cli.entry import main
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import load_task
from tests.tasks.conftest import bundled_task

ZOO = """\
id: zoo
version: 1
title: Zoo
licence: invented
gated: true
data:
  rows: 2
  sources:
    - kind: package
      path: zoo.jsonl
      columns: {sample_id: id, target: right, question: question, options: [right, wrong]}
prompts:
  default: {template: prompt.jinja, source: invented}
grader: choice
"""
ROWS = [
    {
        "id": "z1",
        "question": "Which of the two sings in the morning?",
        "right": "a robin on a roof",
        "wrong": "a carp in a pond",
    },
    {
        "id": "z2",
        "question": "Which of the two swims under the ice?",
        "right": "a pike in a lake",
        "wrong": "a wren in a hedge",
    },
]
THOUGHT = "A thought that nobody may read: "


@pytest.fixture
def invented(tmp_path):
    """A gated family of a third party; returns its task and the flags that find it."""
    family = tmp_path / "tasks" / "zoo"
    family.mkdir(parents=True)
    (family / "zoo.yaml").write_text(ZOO)
    (family / "prompt.jinja").write_text("{{ question }} {{ choices.A }} or {{ choices.B }}?")
    (family / "zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return load_task(family / "zoo.yaml"), ["--tasks-dir", str(tmp_path / "tasks")], None


@pytest.fixture
def gpqa(data_dir):
    """GPQA Diamond itself."""
    return bundled_task("gpqa_diamond/gpqa_diamond.yaml"), ["--data-dir", str(data_dir)], data_dir


@pytest.fixture(params=["invented", "gpqa"])
def gated(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def g4eval(tmp_path, monkeypatch, capsys):
    """Call the command line; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["g4eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            main()
        for handler in logging.getLogger("g4eval").handlers[:]:
            logging.getLogger("g4eval").removeHandler(handler)
            handler.close()
        out, err = capsys.readouterr()
        return leave.value.code, out, err

    return call


def _secrets(samples):
    """Return texts that stand for the whole: pieces of each question, and each longer option."""
    texts = {THOUGHT}
    for sample in samples:
        question = sample.fields["question"]
        texts |= {question[:32], question[len(question) // 2 :][:32]}
        texts |= {option for option in sample.fields["options"] if len(option) >= 16}
    return {text.strip() for text in texts if len(text.strip()) >= 16}


def _found(secrets, text):
    shapes = (lambda s: s, lambda s: json.dumps(s)[1:-1], repr)
    return sorted(
        len(secret) for secret in secrets for shape in shapes if shape(secret).strip("'") in text
    )


def _texts_of(database):
    """Return every value in every table that isn't a compressed text of a completion."""
    connection = sqlite3.connect(database)
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert ("completions",) in tables
    values = []
    for (table,) in tables:
        for row in connection.execute(f"SELECT * FROM {table}"):
            values += [v for v in row if isinstance(v, str)]
            assert table == "completions" or not any(isinstance(v, bytes) for v in row)
    connection.close()
    return ["\n".join(values)]


def _quoting_script(path: Path, samples):
    with path.open("w") as stream:
        for sample in samples:
            options = "\n".join(sample.fields["options"])
            line = {
                "sample_id": sample.sample_id,
                "reasoning": f"{THOUGHT}{sample.fields['question']}",
                "text": f"{sample.fields['question']}\n{options}\nAnswer: A",
            }
            stream.write(json.dumps(line) + "\n")


def test_a_run_shows_and_writes_no_text_of_a_gated_task(gated, g4eval, tmp_path):
    task, flags, data_dir = gated
    samples = load_samples(task, data_dir).samples
    secrets = _secrets(samples)
    script = tmp_path / "script.jsonl"
    _quoting_script(script, samples)
    run = ["run", task.spec.id, "--engine", "fake", "--set", f"engine.script={script}", *flags]
    code, out, err = g4eval(*run, "--run-id", "r", "--log-file", "log.txt", "-v", "--repeats", "2")
    script.unlink()
    assert code == 0
    said = [out, err, (tmp_path / "log.txt").read_text()]
    one = samples[0].sample_id
    for command in (
        ["show", "r"],
        ["show", "r", "--json"],
        ["show", "r", one],
        ["show", "r", one, "--json"],
        ["export", "r", "--to", "jsonl"],
        ["grade", "r", *flags],
    ):
        code, out, err = g4eval(*command)
        assert code == 0, err
        said += [out, err]
    said += [path.read_text() for path in (tmp_path / "runs" / "r").glob("*.json")]
    said += _texts_of(tmp_path / "runs" / "r" / "run.sqlite")
    assert [_found(secrets, text) for text in said] == [[]] * len(said)


def test_the_store_keeps_neither_prompt_nor_target_of_a_gated_task(gated, g4eval, tmp_path):
    task, flags, _ = gated
    code, *_ = g4eval("run", task.spec.id, "--engine", "fake", "--run-id", "r", *flags)
    assert code == 0
    database = sqlite3.connect(tmp_path / "runs" / "r" / "run.sqlite")
    prompts = database.execute("SELECT count(*), count(messages) FROM prompts").fetchone()
    targets = database.execute("SELECT count(*), count(target) FROM samples").fetchone()
    database.close()
    assert prompts[0] > 0
    assert prompts[1] == targets[1] == 0


def test_what_is_withheld_is_shown_when_asked_for(gated, g4eval, tmp_path):
    task, flags, data_dir = gated
    samples = load_samples(task, data_dir).samples
    script = tmp_path / "script.jsonl"
    _quoting_script(script, samples)
    run = ["run", task.spec.id, "--engine", "fake", "--set", f"engine.script={script}", *flags]
    g4eval(*run, "--run-id", "r")
    for command in (["show", "r", samples[0].sample_id], ["export", "r", "--to", "jsonl"]):
        _, out, _ = g4eval(*command, "--include-gated")
        assert THOUGHT in out


def test_the_prompt_is_rendered_again_from_the_data_when_asked_for(gated, g4eval):
    task, flags, data_dir = gated
    sample = load_samples(task, data_dir).samples[0]
    flags = flags if "--data-dir" in flags else [*flags, "--data-dir", "."]
    g4eval("run", task.spec.id, "--engine", "fake", "--run-id", "r", *flags)
    _, out, _ = g4eval("show", "r", sample.sample_id, *flags)
    assert sample.fields["question"] not in out
    _, out, _ = g4eval("show", "r", sample.sample_id, "--include-gated", *flags)
    assert task.messages(sample, 0)[0].content in out


def test_an_import_with_an_error_quotes_no_completion(gated, g4eval, tmp_path):
    task, flags, data_dir = gated
    samples = load_samples(task, data_dir).samples
    secrets = _secrets(samples)
    question = samples[0].fields["question"]
    bad_lines = [
        {"sample_id": samples[0].sample_id, "text": [question]},
        {"sample_id": samples[0].sample_id, "text": question, "repeat": "first"},
        {"sample_id": samples[0].sample_id, "text": question, "reasoning": {"text": question}},
    ]
    for line in bad_lines:
        (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
        code, out, err = g4eval("import", task.spec.id, "lines.jsonl", "--model", "m", *flags)
        assert code == 2
        assert _found(secrets, out + err) == []
    (tmp_path / "lines.jsonl").write_text(json.dumps(bad_lines[0])[:-3] + "\n")
    code, out, err = g4eval("import", task.spec.id, "lines.jsonl", "--model", "m", *flags)
    assert code == 2
    assert _found(secrets, out + err) == []


def test_an_import_with_the_question_in_a_wrong_place_prints_no_word_of_it(gated, g4eval, tmp_path):
    task, flags, data_dir = gated
    sample = load_samples(task, data_dir).samples[0]
    question = sample.fields["question"]
    secrets = {question[:32].strip()}
    good = {"sample_id": sample.sample_id, "text": "Answer: A"}
    twice = f'{{"sample_id": "x", {json.dumps(question)}: 1, {json.dumps(question)}: 2}}'
    lines = [
        json.dumps({**good, question: 1}),
        json.dumps({**good, "note": question, "Question: " + question: [question]}),
        json.dumps({**good, "sample_id": question}),
        json.dumps({**good, "stop_reason": question}),
        json.dumps({**good, "target": question}),
        json.dumps({**good, "repeat": question}),
        json.dumps({**good, "reasoning": {question: 1}}),
        json.dumps(question),
        f'{{"text": {json.dumps(question)}',
        twice,
    ]
    for number, line in enumerate(lines):
        (tmp_path / "in.jsonl").write_text(line + "\n")
        code, out, err = g4eval("import", task.spec.id, "in.jsonl", "--model", "m",
                                "--run-id", f"r{number}", *flags)  # fmt: skip
        assert code == (0 if number < 2 else 2), err
        assert _found(secrets, out + err) == []
        for path in (tmp_path / "runs").glob("*/manifest.json"):
            assert _found(secrets, path.read_text()) == []
