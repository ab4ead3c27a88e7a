"""L0: do the two arms differ only where the swap says so?

Engine facts fall into groups. Without a declared swap, the changed facts must lie inside one group;
with `swap:`, inside the named groups and fields. A fact known in one arm only can't be compared.
What a task's protocol holds (prompts, graders, sampling, budgets, data) must be equal.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from g4eval.engines.base import UNKNOWN
from g4eval.errors import ConfigError, nearest
from g4eval.gating.arm import UNGRADED, Arm, ArmTask
from g4eval.records import Json

# From the narrowest to the widest: the first that holds all changes names the swap.
GROUPS: dict[str, frozenset[str]] = {
    "kv_cache": frozenset({"kv_cache_dtype"}),
    "precision": frozenset({"dtype", "kv_cache_dtype"}),  # the cache follows unless told otherwise
    "weights": frozenset({"weights_fingerprint", "quantization", "dtype", "model"}),
    "kernels": frozenset(
        {"attention_backend", "parallelism", "speculative_decoding", "dtype", "other"}
    ),
    "engine": frozenset(
        {
            "engine",
            "engine_version",
            "server_address",
            "attention_backend",
            "parallelism",
            "speculative_decoding",
            "other",
        }
    ),
}
SCRIPTED = "fake"  # its `other` facts are its script, which plays the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field with its value in each arm."""

    field: str
    base: Json
    candidate: Json

    def __str__(self) -> str:
        return f"{self.field}: baseline {self.base!r}, candidate {self.candidate!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsDiff:
    """How the engine facts of two arms differ."""

    axis: str  # "none", a group, or the declared swap
    changed: tuple[Change, ...]  # inside the swap
    refused: tuple[Change, ...]  # outside it, or known in one arm only
    unknown: tuple[str, ...]  # in both arms
    declared: tuple[str, ...]  # by the user, in either arm


def compare_facts(base: Arm, candidate: Arm, swap: Sequence[str] | None) -> FactsDiff:
    """Return what differs between the engines, and whether the swap covers it."""
    left, right = _flat(base.facts), _flat(candidate.facts)
    names = sorted(set(left) | set(right))
    pairs = [
        Change(field=n, base=left.get(n, _missing(n)), candidate=right.get(n, _missing(n)))
        for n in names
    ]
    unknown = tuple(c.field for c in pairs if c.base == c.candidate == UNKNOWN)
    changed = [c for c in pairs if c.base != c.candidate]
    one_sided = [c for c in changed if UNKNOWN in (c.base, c.candidate)]
    groups = _groups(scripted=base.facts.get("engine") == candidate.facts.get("engine") == SCRIPTED)
    if swap is None:
        known = [c for c in changed if c not in one_sided]
        axis, allowed = _narrowest(known, groups)
        refused = [c for c in changed if not _covered(c, allowed) or c in one_sided]
    else:
        allowed = _declared_fields(swap, groups, names)
        axis = "+".join(swap) or "none"
        refused = [c for c in changed if not _covered(c, allowed)]
    return FactsDiff(
        axis=axis,
        changed=tuple(c for c in changed if c not in refused),
        refused=tuple(refused),
        unknown=unknown,
        declared=tuple(sorted({*base.declared, *candidate.declared})),
    )


def _missing(field: str) -> str:
    """Return the value of a fact that an engine doesn't give: its own options it just hasn't."""
    return "not there" if field.startswith("other.") else UNKNOWN


def _flat(facts: Mapping[str, Json]) -> dict[str, Json]:
    flat = {name: value for name, value in facts.items() if name != "other"}
    flat.update({f"other.{name}": value for name, value in facts.get("other", {}).items()})
    return flat


def _groups(*, scripted: bool) -> dict[str, frozenset[str]]:
    return GROUPS | {"weights": GROUPS["weights"] | {"other"}} if scripted else GROUPS


def _covered(change: Change, fields: frozenset[str]) -> bool:
    return change.field in fields or change.field.partition(".")[0] in fields


def _narrowest(
    changed: Sequence[Change], groups: Mapping[str, frozenset[str]]
) -> tuple[str, frozenset[str]]:
    """Return the first group that holds every change; else the one that holds most."""
    if not changed:
        return "none", frozenset()
    counts = {name: sum(_covered(c, fields) for c in changed) for name, fields in groups.items()}
    best = max(counts, key=lambda name: counts[name])
    return (best, groups[best]) if counts[best] else ("none", frozenset())


def _declared_fields(
    swap: Sequence[str], groups: Mapping[str, frozenset[str]], names: Iterable[str]
) -> frozenset[str]:
    fields: set[str] = set()
    known = {*groups, *names}
    for name in swap:
        if name not in known:
            raise ConfigError(
                f"{name!r} is neither a group nor a field of the engines' facts",
                where="swap",
                hint=nearest(name, known),
            )
        fields |= groups.get(name, frozenset({name}))
    return frozenset(fields)


def compare_protocols(base: Mapping[str, Json], candidate: Mapping[str, Json]) -> list[Change]:
    """Return the fields of a task's protocol that differ."""
    return [
        Change(field=name, base=base.get(name, UNKNOWN), candidate=candidate.get(name, UNKNOWN))
        for name in sorted({*base, *candidate})
        if base.get(name, UNKNOWN) != candidate.get(name, UNKNOWN)
    ]


def compare_tasks(task_id: str, base: ArmTask, candidate: ArmTask) -> list[Change]:
    """Return every difference of two arms in one task: protocol, samples, prompts."""
    found = [
        Change(field=f"{task_id}.{c.field}", base=c.base, candidate=c.candidate)
        for c in compare_protocols(base.protocol, candidate.protocol)
    ]
    if base.sample_ids != candidate.sample_ids:
        found.append(_sample_change(task_id, base, candidate))
        return found
    k = min(base.outcomes.shape[1], candidate.outcomes.shape[1])
    left, right = base.prompt_hashes[:, :k], candidate.prompt_hashes[:, :k]
    failed = (base.outcomes[:, :k] >= UNGRADED) | (candidate.outcomes[:, :k] >= UNGRADED)
    differ = np.argwhere((left != right) & ~failed)  # known in one arm only differs, too
    if len(differ):
        i, j = (int(x) for x in differ[0])
        found.append(
            Change(
                field=f"{task_id}.prompt of {len(differ)} tries, first {base.sample_ids[i]}",
                base=str(left[i, j])[:12] or UNKNOWN,
                candidate=str(right[i, j])[:12] or UNKNOWN,
            )
        )
    return found


def _sample_change(task_id: str, base: ArmTask, candidate: ArmTask) -> Change:
    only_base = sorted(set(base.sample_ids) - set(candidate.sample_ids))
    only_candidate = sorted(set(candidate.sample_ids) - set(base.sample_ids))
    first = (only_base or only_candidate)[0]
    return Change(
        field=f"{task_id}.samples ({len(only_base) + len(only_candidate)} in one arm only, "
        f"first {first})",
        base=len(base.sample_ids),
        candidate=len(candidate.sample_ids),
    )
