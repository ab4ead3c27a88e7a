"""A step of a try to a Request: its key, its seed, its prompt.

What stands in the key's JSON may grow only by fields that are left out at the value which every
earlier request had (step 0, generation, no tools): else no stored run could be continued.
"""

from functools import lru_cache

from g4eval.config import SamplingParams
from g4eval.fingerprint import prompt_hash, request_seed, sha256_json
from g4eval.plan import PlannedTry
from g4eval.records import Chat, Json, Kind, Prompt, Request, Text, TokenIds, Tool


def render_request(
    planned: PlannedTry,
    step: int,
    prompt: Prompt,
    *,
    kind: Kind = Kind.GENERATE,
    continuation: Text | TokenIds | None = None,
    tools: tuple[Tool, ...] = (),
) -> Request:
    """Render one request; the same one in every subset, order and process."""
    spec, sampling = planned.task_plan.task.spec, planned.task_plan.sampling
    sample_id, repeat = planned.sample.sample_id, planned.repeat
    seed = request_seed(spec.id, spec.version, sample_id, repeat, planned.plan.seed, step=step)
    identity: dict[str, Json] = {
        "task": [spec.id, spec.version],
        "sample_id": sample_id,
        "repeat": repeat,
        "prompt": prompt_hash(prompt),
        "sampling": _sampling_hash(sampling),
        "seed": seed,
        "engine": planned.plan.engine_fingerprint,
    }
    if step:
        identity["step"] = step
    if kind is not Kind.GENERATE:
        identity["kind"] = kind.value
    if continuation is not None:
        identity["continuation"] = prompt_hash(continuation)
    if tools:
        identity["tools"] = [[t.name, t.description, dict(t.parameters)] for t in tools]
    return Request(
        key=sha256_json(identity),
        task_id=spec.id,
        task_version=spec.version,
        sample_id=sample_id,
        repeat=repeat,
        prompt=prompt,
        sampling=sampling,
        seed=seed,
        step=step,
        kind=kind,
        continuation=continuation,
        tools=tools,
    )


def first_request(planned: PlannedTry) -> Request:
    """Return step 0 of a try whose task asks its question first: every single-turn one."""
    task = planned.task_plan.task
    messages = task.messages(planned.sample, planned.repeat, variant=planned.task_plan.prompt)
    return render_request(planned, 0, Chat(messages))


@lru_cache(maxsize=64)
def _sampling_hash(sampling: SamplingParams) -> str:
    return sha256_json(sampling.model_dump(mode="json"))
