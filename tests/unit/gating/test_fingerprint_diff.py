from dataclasses import replace

import numpy as np
import pytest

from g4eval.errors import ConfigError
from g4eval.gating.fingerprint_diff import compare_facts, compare_tasks
from tests.unit.gating.arms import PROTOCOL, arm, arm_task

BASE = arm({"demo": ["C"]})


def candidate(**facts):
    return arm({"demo": ["C"]}, seed=1, run_id="candidate", **facts)


def test_equal_engines_have_no_axis():
    found = compare_facts(BASE, candidate(), None)
    assert (found.axis, found.changed, found.refused) == ("none", (), ())


@pytest.mark.parametrize(
    ("facts", "axis"),
    [
        ({"quantization": "fp8", "weights_fingerprint": "bb", "model": "gemma-fp8"}, "weights"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache"),
        ({"dtype": "float32"}, "precision"),
        ({"dtype": "float32", "kv_cache_dtype": "float32"}, "precision"),
        ({"dtype": "float32", "quantization": "fp8"}, "weights"),
        ({"attention_backend": "triton"}, "kernels"),
        ({"attention_backend": "triton", "parallelism": "tp2"}, "kernels"),
        ({"engine_version": "0.13"}, "engine"),
        ({"engine": "sglang", "engine_version": "1", "attention_backend": "x"}, "engine"),
        ({"other": {"prefix_caching": False}}, "kernels"),
    ],
)
def test_changes_inside_one_group_name_the_swap(facts, axis):
    found = compare_facts(BASE, candidate(**facts), None)
    assert found.axis == axis
    assert not found.refused
    assert found.changed


def test_a_chat_template_that_changed_beside_the_quantization_is_refused_with_both_values():
    found = compare_facts(BASE, candidate(quantization="fp8", chat_template_hash="dd"), None)
    assert found.axis == "weights"
    assert [str(c) for c in found.refused] == ["chat_template_hash: baseline 'cc', candidate 'dd'"]


def test_changes_in_two_groups_are_refused():
    found = compare_facts(BASE, candidate(quantization="fp8", engine_version="0.13"), None)
    assert len(found.refused) == 1


def test_a_declared_swap_allows_its_groups_and_fields_only():
    changed = candidate(quantization="fp8", engine_version="0.13", chat_template_hash="dd")
    found = compare_facts(BASE, changed, ["weights", "engine_version"])
    assert found.axis == "weights+engine_version"
    assert [c.field for c in found.refused] == ["chat_template_hash"]
    found = compare_facts(BASE, changed, ["weights", "engine", "chat_template_hash"])
    assert not found.refused


def test_no_swap_at_all_can_be_declared():
    assert [c.field for c in compare_facts(BASE, candidate(dtype="float32"), []).refused] == [
        "dtype"
    ]


def test_an_unknown_swap_is_a_configuration_error():
    with pytest.raises(ConfigError, match="'wieghts' is neither"):
        compare_facts(BASE, candidate(), ["wieghts"])


def test_a_fact_unknown_in_both_arms_is_listed():
    left = arm({"demo": ["C"]}, kv_cache_dtype="unknown")
    found = compare_facts(left, candidate(kv_cache_dtype="unknown"), None)
    assert found.unknown == ("kv_cache_dtype",)
    assert not found.refused


def test_a_fact_known_in_one_arm_only_is_refused_unless_the_swap_names_it():
    right = candidate(weights_fingerprint="unknown")
    found = compare_facts(BASE, right, None)
    assert [str(c) for c in found.refused] == [
        "weights_fingerprint: baseline 'aa', candidate 'unknown'"
    ]
    assert not compare_facts(BASE, right, ["weights"]).refused


def test_an_option_that_only_one_engine_has_is_part_of_the_swap_of_engines():
    right = candidate(engine="gemma", engine_version="1", other={"prefix_caching": True, "b": 2})
    found = compare_facts(BASE, right, None)
    assert found.axis == "engine"
    assert not found.refused
    assert "other.b: baseline 'not there', candidate 2" in [str(c) for c in found.changed]


def test_the_script_of_a_fake_engine_plays_its_weights():
    left = arm({"demo": ["C"]}, engine="fake", other={"accuracy": 0.7})
    right = candidate(engine="fake", quantization="q8", other={"accuracy": 0.6})
    found = compare_facts(left, right, None)
    assert found.axis == "weights"
    assert not found.refused


@pytest.mark.parametrize(
    ("key", "value"),
    [("grader", ["integer 2"]), ("sampling.max_new_tokens", 256), ("prompt", "other")],
)
def test_another_protocol_is_named_with_both_values(key, value):
    right = arm_task(["C"], protocol={**PROTOCOL, key: value})
    (change,) = compare_tasks("demo", arm_task(["C"]), right)
    assert str(change) == f"demo.{key}: baseline {PROTOCOL[key]!r}, candidate {value!r}"


def test_missing_samples_are_counted_and_one_is_named():
    (change,) = compare_tasks("demo", arm_task(["C", "C", "C"]), arm_task(["C", "C"]))
    assert str(change) == ("demo.samples (1 in one arm only, first s0002): baseline 3, candidate 2")


def test_another_prompt_of_one_try_is_found():
    right = replace(
        arm_task(["CC", "CC"]), prompt_hashes=np.array([["hash", "hash"], ["hash", "other"]])
    )
    (change,) = compare_tasks("demo", arm_task(["CC", "CC"]), right)
    assert str(change) == (
        "demo.prompt of 1 tries, first s0001: baseline 'hash', candidate 'other'"
    )


def test_prompts_of_tries_that_failed_are_not_compared():
    right = replace(arm_task(["U"]), prompt_hashes=np.array([[""]]))
    assert not compare_tasks("demo", arm_task(["C"]), right)
