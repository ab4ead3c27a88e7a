"""The one prompt before a run, asked of engine fake with a script."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from g4eval.engines.fake import FakeEngine, FakeOptions
from g4eval.preflight import check_engine
from g4eval.profile import get_profile
from g4eval.store.run_store import RunStore

KNOWN = get_profile("gemma-4-31b").chat_template_hashes[0]
CLOSED = "<|channel>thought\n17 + 25<channel|>42"


class Engine(FakeEngine):
    """Engine fake with other facts; it counts what it is asked."""

    asked = 0
    budgets: list[int]
    facts: dict[str, Any]

    def describe(self):
        return dataclasses.replace(super().describe(), **self.facts)

    async def answer(self, request):
        type(self).asked += 1
        self.budgets = [request.sampling.max_new_tokens]
        return await super().answer(request)


def _check(tmp_path, text, *, budgets=None, stop_reason="stop", thinking=True, **facts):
    script = tmp_path / "script.jsonl"
    line = {"sample_id": "preflight", "text": text, "stop_reason": stop_reason}
    script.write_text(json.dumps(line) + "\n")
    engine = Engine(FakeOptions(script=script, thinking=thinking))
    engine.facts = {"chat_template_hash": KNOWN, **facts}
    with RunStore(tmp_path / "run") as store:
        return asyncio.run(
            check_engine(engine, get_profile("gemma-4-31b"), budgets or {"aime26": 65536}, store)
        )


@pytest.mark.parametrize(("thinking", "most"), [("on", 4096), ("off", 256), ("unknown", 256)])
def test_only_a_thought_gets_a_long_budget(tmp_path, thinking, most):
    engine = Engine(FakeOptions())
    engine.facts = {"thinking": thinking}
    with RunStore(tmp_path / "run") as store:
        asyncio.run(check_engine(engine, get_profile("gemma-4-31b"), {}, store))
    assert engine.budgets == [most]


def test_an_engine_that_thinks_and_answers_gets_no_warning(tmp_path):
    assert _check(tmp_path, CLOSED) == ()


@pytest.mark.parametrize(
    ("text", "stop_reason", "thinking", "warning"),
    [
        ("42", "stop", True, "had no thought"),
        ("<|channel>thought\nhm", "length", True, "was not closed within its budget"),
        ("<|channel>thought\nhm", "stop", True, "was not closed"),
        (CLOSED, "stop", False, "thinking is off"),
        ("<|channel>thought\n42<channel|>", "stop", True, "was empty"),
    ],
)
def test_a_thought_that_is_not_as_asked_for_is_told(tmp_path, text, stop_reason, thinking, warning):
    (found,) = _check(tmp_path, text, stop_reason=stop_reason, thinking=thinking)
    assert warning in found


def test_an_unknown_template_is_told(tmp_path):
    (found,) = _check(tmp_path, CLOSED, chat_template_hash="ab" * 32)
    assert "none of the 1 known for gemma-4-31b" in found


def test_a_template_that_cannot_be_seen_is_told(tmp_path):
    (found,) = _check(tmp_path, CLOSED, chat_template_hash="unknown")
    assert "is unknown" in found


@pytest.mark.parametrize("room", [{"budgets": {"bbeh": 8192}}, {"context_tokens": 8192}])
def test_a_budget_that_holds_no_thought_is_told(tmp_path, room):
    (found,) = _check(tmp_path, CLOSED, **room)
    assert "8,192 tokens may not hold a thought" in found


def test_the_same_engine_is_asked_once_and_another_one_again(tmp_path):
    Engine.asked = 0
    first = _check(tmp_path, "42")
    assert _check(tmp_path, "42") == first
    assert Engine.asked == 1
    _check(tmp_path, "42", dtype="bfloat16")
    assert Engine.asked == 2


def test_a_failed_request_is_told(tmp_path):
    engine = Engine(FakeOptions(failed_share=1.0))
    engine.facts = {"chat_template_hash": KNOWN}
    with RunStore(tmp_path / "run") as store:
        (found,) = asyncio.run(check_engine(engine, get_profile("gemma-4-31b"), {}, store))
    assert "got no answer: engine fake was asked to fail this one" in found
