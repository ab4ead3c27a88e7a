"""How often a plan lets a candidate PASS that is `ok_pt` (0: equal), by simulating its own rules.

On pairs of tasks whose accuracy and correlation are known: a normal path for `gst` and `fixed`,
drawn signs of pairs for `anytime`. So a planned power is the power that comes of it, for every
design and primary.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from g4eval.gating.decide import Says
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import Round, information_fractions, plan_rounds
from g4eval.stats.paired import NORMAL
from g4eval.stats.power import PlannedTask, pair_variance
from g4eval.stats.sequential import RoundCounts, boundaries, log_e_fail, log_e_pass

RUNS, PATHS = 4000, 20_000
LARGEST_FACTOR = 1e4  # of repeats that is looked at


def pass_rate(tasks: Mapping[str, PlannedTask], policy: GatePolicy) -> float:
    """Return the chance that a candidate at `ok_pt` gets PASS; 0, the default, is an equal one."""
    tasks = primary_tasks(tasks, policy)
    n_samples = {name: task.n_samples for name, task in tasks.items()}
    rounds = plan_rounds(
        {name: task.repeats for name, task in tasks.items()},
        design=policy.design,
        looks=policy.looks,
        n_samples=n_samples,
    )
    said = (
        _bets(tasks, rounds, policy)
        if policy.design == "anytime"
        else _paths(tasks, rounds, policy)
    )
    return float((said == Says.PASS).mean())


def primary_tasks(
    tasks: Mapping[str, PlannedTask], policy: GatePolicy
) -> Mapping[str, PlannedTask]:
    """Return the tasks that the primary is a mean over."""
    return tasks if policy.primary not in tasks else {policy.primary: tasks[policy.primary]}


def repeats_for(
    tasks: Mapping[str, PlannedTask], policy: GatePolicy, power: float
) -> dict[str, PlannedTask]:
    """Return the tasks with the fewest repeats, scaled together, that reach a power."""
    low, high = 0.0, 1.0
    while pass_rate(_scaled(tasks, policy, high), policy) < power and high < LARGEST_FACTOR:
        low, high = high, 2 * high
    for _ in range(8):
        middle = (low + high) / 2
        if pass_rate(_scaled(tasks, policy, middle), policy) < power:
            low = middle
        else:
            high = middle
    return _scaled(tasks, policy, high)


def _scaled(
    tasks: Mapping[str, PlannedTask], policy: GatePolicy, factor: float
) -> dict[str, PlannedTask]:
    wanted = primary_tasks(tasks, policy)
    return {
        name: replace(task, repeats=max(1, math.ceil(task.repeats * factor - 1e-9)))
        if name in wanted
        else task
        for name, task in tasks.items()
    }


def _paths(
    tasks: Mapping[str, PlannedTask], rounds: tuple[Round, ...], policy: GatePolicy
) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Draw the statistics of `gst` and `fixed`: Brownian motion at the information fractions."""
    error = math.sqrt(sum(task.error**2 for task in tasks.values())) / len(tasks)
    base = None
    if policy.baseline_repeats == "all":
        base = {name: float(task.repeats) for name, task in tasks.items()}
    fractions = information_fractions(rounds, {n: t.n_samples for n, t in tasks.items()}, base)
    rng = np.random.default_rng(20_261_130)
    even = np.array([NORMAL.inv_cdf((i + 0.5) / PATHS) for i in range(PATHS)])
    normal = np.stack([rng.permutation(even) for _ in fractions], axis=1)
    steps = np.sqrt(np.diff(fractions, prepend=0.0)) * normal
    roots = np.sqrt(fractions)
    z = np.cumsum(steps, axis=1) / roots
    alpha_fail = policy.alpha_fail / (2 if policy.equivalence else 1)
    bound_pass = np.array(boundaries(fractions, policy.alpha_pass, policy.spending))
    bound_fail = np.array(boundaries(fractions, alpha_fail, policy.spending))
    far = z + (policy.margin + policy.ok) / error * roots
    passes, fails = far > bound_pass, -z > bound_fail
    if policy.equivalence:
        passes &= -(z + (policy.ok - policy.margin) / error * roots) > bound_pass
        fails |= z + 2 * policy.ok / error * roots > bound_fail
    return _first(passes, fails)


def _bets(
    tasks: Mapping[str, PlannedTask], rounds: tuple[Round, ...], policy: GatePolicy
) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Draw the e-values of `anytime`: signs of pairs, as often unequal as the accuracies say."""
    rng = np.random.default_rng(20_261_130)
    counts = [
        [_draw(rng, task, r.repeats[name], policy.ok) for name, task in tasks.items()]
        for r in rounds
    ]
    passes, fails = [], []
    for end in range(1, len(rounds) + 1):
        passes.append(log_e_pass(counts[:end], policy.margin) >= -math.log(policy.alpha_pass))
        fails.append(log_e_fail(counts[:end], policy.ok) >= -math.log(policy.alpha_fail))
    return _first(np.stack(passes, axis=1), np.stack(fails, axis=1))


def _draw(
    rng: np.random.Generator, task: PlannedTask, stretch: tuple[float, float], delta: float
) -> RoundCounts:
    start, end = stretch
    n = max(1, round(end * task.n_samples) - round(start * task.n_samples))
    unequal = pair_variance(task.accuracy, task.rho) / 2
    chances = [max(0.0, unequal + delta / 2), unequal - delta / 2]
    drawn = rng.multinomial(n, [*chances, 1 - sum(chances)], RUNS).astype(np.float64)
    return RoundCounts(gains=drawn[:, 0], losses=drawn[:, 1], ties=drawn[:, 2], n_planned=n)


def _first(
    passes: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    fails: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    said = np.zeros(len(passes), np.int8)
    for look in range(passes.shape[1]):
        going = said == Says.GO_ON
        said = np.where(going & passes[:, look], np.int8(Says.PASS), said)
        said = np.where(going & fails[:, look], np.int8(Says.FAIL), said)
    return said
