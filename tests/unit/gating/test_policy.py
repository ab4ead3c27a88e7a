from pathlib import Path

import pytest

from g4eval.errors import ConfigError
from g4eval.gating.policy import GatePolicy, read_policy


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return path


def test_no_file_is_the_defaults():
    assert read_policy(None) == GatePolicy()


def test_a_file_is_read(tmp_path: Path):
    found = read_policy(write(tmp_path, "margin_pt: 3\nok_pt: -1\nshape: {increase_pt: 2}\n"))
    assert (found.margin, found.ok, found.shape.increase_pt) == (0.03, -0.01, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("marginpt: 3", "'marginpt' is not a known key"),
        ("drift: {catastrophic: 1}", "'drift.catastrophic' is not a known key"),
        ("margin_pt: 0", "margin_pt: 0 breaks its rule"),
        ("ok_pt: 1", "ok_pt: 1 breaks its rule"),
        ("margin_pt: 1\nok_pt: -1", "must lie above -margin_pt"),
        ("design: sprt", "design: 'sprt' breaks its rule"),
        ("on_inconclusive: extend", "needs design: anytime"),
        ("repeats: {demo: 0}", "must be 1 or more"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_policy(write(tmp_path, text))


def test_every_key_is_in_the_identity():
    assert GatePolicy().fingerprint == GatePolicy(margin_pt=1.5).fingerprint
    assert GatePolicy().fingerprint != GatePolicy(decision_seed=1).fingerprint


@pytest.mark.parametrize(
    ("task", "repeats"), [("aime26", 16), ("gpqa_diamond", 8), ("bbeh_mini", 4), ("bbeh", 1)]
)
def test_a_named_plan_sets_the_repeats_of_the_benchmarks(task: str, repeats: int):
    assert GatePolicy(plan="nightly").planned_repeats(task) == repeats


def test_repeats_of_a_task_go_before_the_plan():
    policy = GatePolicy(plan="nightly", repeats={"aime26": 2})
    assert policy.planned_repeats("aime26") == 2
    assert GatePolicy().planned_repeats("aime26") is None


def test_every_key_is_documented():
    text = Path(__file__).parents[3].joinpath("docs", "gate.md").read_text()
    keys = {*GatePolicy.model_fields} - {"drift", "shape"}
    for name in ("drift", "shape"):
        keys |= {f"{name}.{key}" for key in type(getattr(GatePolicy(), name)).model_fields}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]
