"""BBEH: its rows from the data folder and in the hub's shape, its prompt, its limit."""

import json
from collections import Counter

import pytest

from g4eval.errors import DataError
from g4eval.jsonlines import read_json_lines
from g4eval.planning import limit_samples
from g4eval.report.from_store import view_run
from g4eval.tasking.datasets import load_samples
from tests.tasks.conftest import bundled_task, from_hub

SUFFIX = (
    'Think step by step, and when you provide the final answer, please use the prefix "The answer '
    'is:" without any modification, and provide the answer directly, with no formatting, no '
    'bolding, and no markup. For instance: "The answer is: 42" or "The answer is: yes". If the '
    "question is multiple choice with a single correct answer, the final answer must only be the "
    'letter corresponding to the correct answer. For example, "The answer is: (a)".'
)


def test_the_data_folder_gives_every_row_verified(data_dir):
    data = load_samples(bundled_task("bbeh/bbeh.yaml"), data_dir)
    assert (len(data.samples), data.text, data.is_partial) == (4520, "verified", False)
    sizes = Counter(s.groups["task"] for s in data.samples)
    assert len(sizes) == 23
    assert sizes.pop("bbeh_disambiguation_qa") == 120
    assert set(sizes.values()) == {200}


def test_mini_has_twenty_of_each_task_under_their_ids_in_the_full_set(data_dir):
    full = load_samples(bundled_task("bbeh/bbeh.yaml"), data_dir)
    mini = load_samples(bundled_task("bbeh/bbeh_mini.yaml"), data_dir)
    assert (len(mini.samples), mini.text) == (460, "verified")
    assert set(Counter(s.groups["task"] for s in mini.samples).values()) == {20}
    by_id = {s.sample_id: s for s in full.samples}
    assert all(by_id[s.sample_id] == s for s in mini.samples)


def test_a_limit_of_23_takes_one_sample_of_each_task(data_dir):
    task = bundled_task("bbeh/bbeh.yaml")
    samples = load_samples(task, data_dir).samples
    taken = limit_samples(samples, 23, task.spec.limit_by)
    assert len({s.groups["task"] for s in taken}) == 23


def test_the_prompt_is_the_input_and_the_papers_suffix(data_dir):
    task = bundled_task("bbeh/bbeh.yaml")
    sample = load_samples(task, data_dir).samples[0]
    (message,) = task.messages(sample, 0)
    assert (message.role, message.content) == ("user", f"{sample.fields['input']}\n\n{SUFFIX}")


def _hub_folder(data_dir, tmp_path, change=lambda rows: rows):
    """Write the data folder's rows in the hub's shape: no ids, task names with spaces, `mini`."""
    folder = data_dir / "bbeh"
    mini = {row["full_id"] for _, row in read_json_lines(folder / "bbeh_mini.jsonl.gz")}
    rows = [
        {
            "task": row["task"].removeprefix("bbeh_").replace("_", " "),
            "input": row["input"],
            "target": row["target"],
            "mini": int(row["id"] in mini),
        }
        for _, row in read_json_lines(folder / "bbeh_full.jsonl.gz")
    ]
    hub = tmp_path / "snapshot"
    hub.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in change(rows))
    (hub / "train.jsonl").write_text(text, encoding="utf-8")
    return hub


@pytest.mark.parametrize("name", ["bbeh", "bbeh_mini"])
def test_the_hubs_rows_get_the_same_ids_in_whatever_order(data_dir, tmp_path, name):
    pytest.importorskip("datasets")
    task = bundled_task(f"bbeh/{name}.yaml")
    hub = from_hub(task, _hub_folder(data_dir, tmp_path, lambda rows: rows[::-1]))
    there = load_samples(task, data_dir)
    here = load_samples(hub, None)
    assert here.text_sha256 == there.text_sha256
    assert {s.sample_id: s.target for s in here.samples} == {
        s.sample_id: s.target for s in there.samples
    }


def test_a_hub_row_with_another_text_is_refused(data_dir, tmp_path):
    pytest.importorskip("datasets")

    def change(rows):
        return [*rows[:5], {**rows[5], "input": rows[5]["input"] + "!"}, *rows[6:]]

    hub = from_hub(bundled_task("bbeh/bbeh.yaml"), _hub_folder(data_dir, tmp_path, change))
    with pytest.raises(DataError, match="is not a BBEH row") as caught:
        load_samples(hub, None)
    assert str(caught.value.where).endswith("row 6")


@pytest.mark.parametrize(("task_id", "is_shown"), [("bbeh", True), ("bbeh_mini", False)])
def test_the_harmonic_mean_is_shown_where_its_task_asks_for_it(
    quick_cli, data_dir, tmp_path, task_id, is_shown
) -> None:
    """In the table, as JSON and on the pages alike: on 460 examples it says nothing."""
    done = quick_cli("run", task_id, "--engine", "fake", "--model", "m", "--limit", "46",
                     "--run-id", "r", G4EVAL_DATA_DIR=str(data_dir))  # fmt: skip
    assert ("harmonic" in done.stdout) is is_shown
    shown = quick_cli("show", "r", "--json").stdout
    assert ("harmonic" in json.loads(shown)["tasks"][task_id]["groups"]) is is_shown
    names = [metric.name for metric in view_run(tmp_path / "runs" / "r").tasks[0].metrics]
    assert ("adjusted harmonic mean" in names) is is_shown
    assert "macro average" in names
