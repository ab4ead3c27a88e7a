"""One prompt before the first: does thinking work, is the chat template known, is there room.

A model whose thinking was asked for and silently left off scores 8 points less on GPQA, and nothing
else shows it. What is found is recorded once per engine fingerprint, apart from the completions,
and stands as warnings in the run's table.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from g4eval.config import SamplingParams
from g4eval.engines.base import UNKNOWN, Engine, EngineFacts
from g4eval.fingerprint import sha256_json
from g4eval.profile import Profile
from g4eval.records import Attempt, Chat, Completion, Message, Request, StopReason, Thought
from g4eval.store.run_store import RunStore

TASK_ID = "preflight"
PROMPT = "A box holds 17 pens and a bag holds 25. How many pens are that together?"
MOST_TOKENS = 4096  # for a thought to close
MOST_TOKENS_WITHOUT_THOUGHT = 256  # a base model may go on for as long as it is let
# Gemma 4's thoughts on hard problems run to tens of thousands of tokens; below this many, runs
# elsewhere lost 3 to 10 points.
ROOM_FOR_A_THOUGHT = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What was found out."""

    fingerprint: str  # of the engine
    warnings: tuple[str, ...]
    thought: str | None  # of the answer to PROMPT; None: no answer came
    stop_reason: str | None
    completion_tokens: int | None


async def check_engine(
    engine: Engine, profile: Profile, budgets: dict[str, int], store: RunStore
) -> tuple[str, ...]:
    """Send the prompt, unless it was sent to this very engine before; return the warnings.

    Args:
        engine: entered.
        profile: what is known of the model.
        budgets: task id -> max_new_tokens.
        store: of the run; the result is kept there.
    """
    facts = engine.describe()
    recorded = json.loads(store.meta().get(TASK_ID, "{}"))
    if recorded.get("fingerprint") == facts.fingerprint:
        return tuple(recorded["warnings"])
    answer = await _ask(engine, profile, facts)
    completion = answer if isinstance(answer, Completion) else None
    found = Preflight(
        fingerprint=facts.fingerprint,
        warnings=tuple(_warnings(answer, facts, profile, budgets)),
        thought=completion.thought.value if completion else None,
        stop_reason=completion.stop_reason.value if completion else None,
        completion_tokens=completion.completion_tokens if completion else None,
    )
    store.set_meta({TASK_ID: json.dumps(_plain(found))})
    return found.warnings


async def _ask(engine: Engine, profile: Profile, facts: EngineFacts) -> Completion | Attempt:
    most = MOST_TOKENS if facts.thinking == "on" else MOST_TOKENS_WITHOUT_THOUGHT
    sampling = SamplingParams(**{**profile.sampling, "max_new_tokens": most})
    request = Request(
        key=sha256_json([TASK_ID, PROMPT, sampling.model_dump(mode="json"), facts.fingerprint]),
        task_id=TASK_ID,
        task_version=1,
        sample_id=TASK_ID,
        repeat=0,
        prompt=Chat((Message(role="user", content=PROMPT),)),
        sampling=sampling,
        seed=0,
    )
    return await engine.answer(request)


def _warnings(
    answer: Completion | Attempt,
    facts: EngineFacts,
    profile: Profile,
    budgets: dict[str, int],
) -> list[str]:
    found = []
    if isinstance(answer, Completion):
        found += _about_thinking(answer, facts)
    else:
        found.append(f"the first prompt got no answer: {answer.error}")
    known = profile.chat_template_hashes
    if facts.chat_template_hash == UNKNOWN:
        found.append("the chat template of the model as it is served is unknown")
    elif facts.chat_template_hash not in ("none", *known):
        found.append(
            f"the chat template ({facts.chat_template_hash[:12]}…) is none of the {len(known)} "
            f"known for {profile.name}: it may be newer, or somebody's own"
        )
    if facts.thinking == "on":
        found += _about_room(facts, budgets)
    return found


def _about_thinking(answer: Completion, facts: EngineFacts) -> list[str]:
    if facts.thinking == "on" and answer.thought is Thought.NONE:
        return ["thinking is on, and the answer to the first prompt had no thought"]
    if facts.thinking == "on" and answer.thought is Thought.OPEN:
        budget = " within its budget" if answer.stop_reason is StopReason.LENGTH else ""
        return [f"the thought on the first prompt was not closed{budget}"]
    if facts.thinking == "off" and (answer.reasoning or "").strip():
        return ["thinking is off, and the answer to the first prompt had a thought"]
    if not answer.text.strip():
        return ["the answer to the first prompt was empty"]
    return []


def _about_room(facts: EngineFacts, budgets: dict[str, int]) -> Sequence[str]:
    context = facts.room_tokens
    room = {
        task_id: budget if context is None else min(budget, context)
        for task_id, budget in budgets.items()
    }
    return [
        f"{task_id}: {tokens:,} tokens may not hold a thought (fewer than {ROOM_FOR_A_THOUGHT:,})"
        for task_id, tokens in room.items()
        if tokens < ROOM_FOR_A_THOUGHT
    ]


def _plain(found: Preflight) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}
