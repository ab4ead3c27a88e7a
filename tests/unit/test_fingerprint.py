import hashlib

import pytest

from g4eval.engines.base import EngineFacts
from g4eval.fingerprint import canonical_json, request_seed, sha256_json


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json(float("nan"))


def test_lone_surrogate_can_be_hashed() -> None:
    assert len(sha256_json("\ud800")) == 64


def test_seed_of_a_request_is_the_first_31_bits_of_its_hash() -> None:
    # sha256('["aime26",1,"aime2026-I-1",0,0]') begins with these four bytes.
    digest = hashlib.sha256(b'["aime26",1,"aime2026-I-1",0,0]').digest()
    assert request_seed("aime26", 1, "aime2026-I-1", 0, 0) == int.from_bytes(digest[:4], "big") // 2


def test_seeds_of_repeats_samples_tasks_and_runs_differ() -> None:
    seeds = {
        request_seed(task, version, sample, repeat, run)
        for task in ("a", "b")
        for version in (1, 2)
        for sample in ("x", "y")
        for repeat in range(16)
        for run in (0, 1)
    }
    assert len(seeds) == 256


def facts(**changes: object) -> EngineFacts:
    values: dict[str, object] = {"engine": "vllm", "engine_version": "1", "model": "m", **changes}
    return EngineFacts(**values)  # type: ignore[arg-type]  # names checked by the dataclass


@pytest.mark.parametrize(
    "change",
    [
        {"quantization": "fp8"},
        {"kv_cache_dtype": "fp8"},
        {"attention_backend": "triton"},
        {"engine_version": "2"},
        {"chat_template_hash": "x"},
        {"thinking": "on"},
        {"other": {"flag": 1}},
    ],
)
def test_fact_that_can_move_a_score_changes_the_fingerprint(change) -> None:
    assert facts(**change).fingerprint != facts().fingerprint


def test_concurrency_and_the_list_of_declared_facts_do_not_change_the_fingerprint() -> None:
    assert facts(operation={"concurrency": 8}, declared=("dtype",)).fingerprint == (
        facts().fingerprint
    )
