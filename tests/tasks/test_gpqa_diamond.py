"""GPQA Diamond: rows, prompts and the order of options; no question stands in this file."""

import csv
import dataclasses
import io
import json
import zipfile
from collections import Counter

import pytest

from g4eval.config import RunConfig
from g4eval.errors import DataError
from g4eval.plan import RunPlan
from g4eval.planning import plan_tasks
from g4eval.records import Sample
from g4eval.tasking.choices import choice_order, right_letter
from g4eval.tasking.datasets import load_samples
from tests.driving import render_requests
from tests.tasks.conftest import bundled_task, from_hub

PASSWORD = b"deserted-untie-orchid"

INVENTED = Sample(
    sample_id="recInvented",
    target="seven",
    fields={
        "question": "How many days has a week?",
        "options": ["seven", "six", "eight", "ten"],
    },
)


def test_the_prompt_is_that_of_simple_evals():
    (message,) = bundled_task("gpqa_diamond/gpqa_diamond.yaml").messages(INVENTED, 0)
    order = choice_order("recInvented", 0)
    shown = [INVENTED.fields["options"][choice] for choice in order]
    assert message.content == (
        "Answer the following multiple choice question. The last line of your response should be "
        "of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. "
        "Think step by step before answering.\n\nHow many days has a week?\n\n"
        f"A) {shown[0]}\nB) {shown[1]}\nC) {shown[2]}\nD) {shown[3]}"
    )


def test_repeats_show_the_options_in_several_orders():
    task = bundled_task("gpqa_diamond/gpqa_diamond.yaml")
    prompts = {task.messages(INVENTED, repeat)[0].content for repeat in range(12)}
    assert len(prompts) > 6


def test_every_row_is_there_and_verified(data_dir):
    task = bundled_task("gpqa_diamond/gpqa_diamond.yaml")
    data = load_samples(task, data_dir)
    assert (len(data.samples), data.text, data.is_partial) == (198, "verified", False)
    assert {s.groups["domain"] for s in data.samples} == {"Biology", "Chemistry", "Physics"}


def test_the_prompt_equals_every_recorded_one_but_for_the_order(data_dir):
    """Rendered with the recorded order of options, all 1,974 prompts are equal to the byte."""
    task = bundled_task("gpqa_diamond/gpqa_diamond.yaml")
    by_id = {s.sample_id: s for s in load_samples(task, data_dir).samples}
    with zipfile.ZipFile(data_dir / "gpqa" / "recorded_outputs.zip") as archive:
        lines = archive.read("gpqa_diamond_recorded_outputs.jsonl", pwd=PASSWORD).decode()
    differ = []
    for line in lines.split("\n"):
        if not line:
            continue
        row = json.loads(line)
        sample = by_id[row["record_id"]]
        (message,) = task.messages(sample, 0)
        head, _, _ = message.content.rpartition("\nA) ")
        options = [f"{row['prompt']}\n".find(f") {o}\n") for o in sample.fields["options"]]
        if not row["prompt"].startswith(f"{head}\nA) ") or min(options) < 0:
            differ.append(row["id"])
    assert differ == []


def test_the_hubs_rows_give_the_same_samples(data_dir, tmp_path):
    pytest.importorskip("datasets")
    task = bundled_task("gpqa_diamond/gpqa_diamond.yaml")
    with zipfile.ZipFile(data_dir / "gpqa" / "dataset.zip") as archive:
        text = archive.read("dataset/gpqa_diamond.csv", pwd=PASSWORD).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    columns = ["Record ID", "Question", "Correct Answer", "High-level domain"]
    columns += [f"Incorrect Answer {n}" for n in (1, 2, 3)]
    hub = tmp_path / "snapshot"
    hub.mkdir()
    kept = [{column: row[column] for column in columns} for row in rows]
    (hub / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert load_samples(from_hub(task, hub), None).samples == load_samples(task, data_dir).samples


@pytest.mark.parametrize("password", [None, "open"])
def test_the_archive_stays_locked_without_its_password(data_dir, password):
    task = bundled_task("gpqa_diamond/gpqa_diamond.yaml")
    source = task.spec.data.sources[0].model_copy(update={"password": password})
    data = task.spec.data.model_copy(update={"sources": (source,)})
    locked = dataclasses.replace(task, spec=task.spec.model_copy(update={"data": data}))
    with pytest.raises(DataError, match="the archive is locked"):
        load_samples(locked, data_dir)


def test_a_limit_changes_no_request(data_dir):
    def requests(limit):
        config = RunConfig(
            tasks=("gpqa_diamond",), engine="fake", data_dir=data_dir, repeats=3, limit=limit
        )
        plans = plan_tasks(config, None)
        plan = RunPlan(tasks=plans, seed=0, engine_fingerprint="e")
        return {(r.sample_id, r.repeat): r.key for r in render_requests(plans[0], plan)}

    few, whole = requests(9), requests(None)
    assert (len(few), len(whole)) == (27, 594)
    assert few.items() <= whole.items()


def test_the_right_option_stands_at_each_letter_about_a_quarter_of_the_time(data_dir):
    samples = load_samples(bundled_task("gpqa_diamond/gpqa_diamond.yaml"), data_dir).samples
    letters = Counter(right_letter(sample, repeat) for sample in samples for repeat in range(8))
    # 1,584 places: a quarter is 396, four standard errors of it are 69.
    assert all(327 <= letters[letter] <= 465 for letter in "ABCD")
