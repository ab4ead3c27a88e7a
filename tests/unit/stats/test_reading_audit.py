"""What a run's summary says of how its answers were read, and its means over groups."""

import json
import sys
from dataclasses import replace

import pytest

from g4eval.cli.entry import main
from g4eval.report.text_table import _behind, _warnings
from g4eval.stats.summary import Suspect, summarise
from g4eval.store.reader import RunReader
from g4eval.store.stored import StoredEngine

TASK = """\
id: zoo
version: 1
title: Zoo
licence: invented
data:
  rows: 6
  sources:
    - kind: package
      path: zoo.jsonl
      columns: {sample_id: id, target: answer, question: question}
      groups: {kind: kind}
prompts:
  default: {template: prompt.jinja, source: invented}
grader: stated_answer
metrics: [accuracy, macro, adjusted_harmonic_mean]
splits: [kind]
"""
# id, kind, answer, what the engine answers
ROWS = [
    ("b1", "bird", "owl", "The answer is: owl"),
    ("b2", "bird", "wren", "The answer is: carp"),
    ("b3", "bird", "duck", "**Answer:** duck"),  # right by the second reading alone
    ("b4", "bird", "crow", "I can't tell."),  # ended without an answer
    ("f1", "fish", "carp", "The answer is: carp"),
    ("f2", "fish", "pike", "The answer is: pike"),
]


@pytest.fixture
def summary(tmp_path, monkeypatch, capsys):
    family = tmp_path / "tasks" / "zoo"
    family.mkdir(parents=True)
    (family / "zoo.yaml").write_text(TASK)
    (family / "prompt.jinja").write_text("{{ question }}")
    rows = [{"id": i, "kind": k, "answer": a, "question": "?"} for i, k, a, _ in ROWS]
    (family / "zoo.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    script = tmp_path / "script.jsonl"
    lines = [{"sample_id": i, "text": text} for i, _, _, text in ROWS]
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    argv = ["g4eval", "run", "zoo", "--engine", "fake", "--tasks-dir", "tasks", "--run-id", "r"]
    monkeypatch.setattr(sys, "argv", [*argv, "--set", f"engine.script={script}"])
    with pytest.raises(SystemExit):
        main()
    with RunReader(tmp_path / "runs" / "r") as run:
        (found,) = summarise(run)
    return found, capsys.readouterr().out


def test_a_right_answer_that_was_not_extracted_is_counted_and_named_first(summary):
    found, _ = summary
    assert found.audit.n_not_extracted == 1
    assert found.audit.n_right_by_first_alone == 0
    assert found.audit.second_score == pytest.approx(4 / 6)
    assert found.audit.n_ended_unanswered == 2
    assert found.audit.suspects == (
        Suspect(sample_id="b3", repeat=0, reason="right by the second reading alone"),
        Suspect(sample_id="b4", repeat=0, reason="ended by itself, and no answer was found"),
    )


def test_the_table_says_where_to_look(summary):
    _, text = summary
    assert "  extraction: 1 right by the second reading alone" in text
    assert "  score by the second reading: 66.7" in text  # 4 of 6; by the first 3 of 6
    assert "    look at b3, repeat 0: right by the second reading alone" in text


def test_the_means_over_groups_are_those_of_the_first_split(summary):
    found, text = summary
    # Birds 1 of 4, fish 2 of 2: micro 3/6, macro (1/4 + 1)/2, harmonic 2 / (1/0.26 + 1/1.01).
    assert found.groups.micro == pytest.approx(0.5)
    assert found.groups.macro == pytest.approx(0.625)
    assert found.groups.harmonic == pytest.approx(2 / (1 / 0.26 + 1 / 1.01))
    assert "  macro average over 2 kinds: 62.5" in text
    assert "harmonic mean over 2 kinds, 1 added to each percentage: 41.4" in text


def test_a_program_is_judged_and_not_extracted(summary):
    found, _ = summary
    programs = replace(found, plan=found.plan.model_copy(update={"grader": "code"}))
    text = "\n".join([*_behind(programs), *_warnings(programs, StoredEngine(engine="fake"))])
    assert "  judging: 1 right by a fair judge alone" in text
    assert "  score by a fair judge: 66.7" in text
    assert "wrong by the official rules and right before a fair judge: 1" in text
    assert "extract" not in text
