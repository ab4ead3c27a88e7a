"""Drive a candidate run: generate round by round, and stop once the gate's verdict is certain.

What was generated is a normal run with the repeats of the rounds that were needed. The same command
continues it. Results are consumed in whole rounds, whatever order they finish in.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from g4eval.config import RunConfig
from g4eval.engines.base import Engine, EngineFacts, ScoringEngine
from g4eval.errors import NotReadyError
from g4eval.gating.arm import Arm
from g4eval.gating.decision import Decided, decide_once, drift_floor, stored_plan
from g4eval.gating.layers import check_drift
from g4eval.gating.load import arm_of_run
from g4eval.gating.next_steps import missing_commands
from g4eval.gating.pairing import DecisionPlan, allocated, places_of, repeats_until
from g4eval.gating.policy import GatePolicy
from g4eval.gating.record import verdict_record
from g4eval.gating.schedule import Round, Try, next_round, tries_in_order
from g4eval.gating.verdict import GateVerdict, check_before_generation, plan_of
from g4eval.graders.pool import GraderPool, lacks_grades
from g4eval.pipeline import run_tasks
from g4eval.plan import PlannedTry, RunPlan, TaskPlan, graded_tasks, tries_to_leave_out
from g4eval.planning import answers_of, find_profile, plan_tasks, run_id_of
from g4eval.profile import Profile
from g4eval.session import OpenedRun, Reporter, make_engine, open_run, with_model
from g4eval.stats.drift import DriftSummary
from g4eval.store.run_store import RunStore
from g4eval.teacher_forcing import (
    TraceChoice,
    choose_traces,
    compare_traces,
    load_scores,
    save_scores,
    score_traces,
    scores_path,
)

CANARY_SAMPLES = (
    20  # sent first, over all tasks: enough to see that prompts agree and answers parse
)
TRIES = 3  # how often a round's failed requests are sent


def candidate_config(
    base: Arm, flags: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a RunConfig: the baseline's, with what is asked of the candidate.

    Another engine leaves the baseline's `engine.*` settings behind. The run seed is the baseline's
    plus 1 unless given, so that the arms draw independently.
    """
    values = dict(base.config)
    inherited = dict(values.pop("set", {}))
    for key in ("repeats", "run_id", "reuse", "strict", "header", "retry_refused"):
        values.pop(key, None)
    if flags.get("engine", values.get("engine")) != values.get("engine"):
        inherited = {k: v for k, v in inherited.items() if not k.startswith("engine.")}
    if "profile" in flags and "model" not in flags:
        values.pop("model", None)
    values.update(flags)
    values["tasks"] = sorted(base.tasks)
    values["set"] = {**inherited, **settings}
    values.setdefault("seed", 0)
    if "seed" not in flags:
        values["seed"] = (base.seed or 0) + 1
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A candidate being driven against a baseline."""

    config: RunConfig
    base: Arm
    policy: GatePolicy
    engine: Engine
    facts: EngineFacts
    profile: Profile | None
    plans: tuple[TaskPlan, ...]
    reporter: Reporter

    @property
    def folder(self) -> Path:
        """Where the candidate's run is, or will be."""
        run_id = run_id_of(self.config, self.facts, self.plans, self.profile)
        return self.config.runs_dir / run_id

    @contextmanager
    def open(self, plan: DecisionPlan, index: int) -> Iterator[OpenedRun]:
        """Open the candidate's run, planned up to the end of a round."""
        counts = repeats_until(self.base, plan, self.policy, index)
        repeats = {task: int(c.max()) for task, c in counts.items()}
        settings = {**self.config.settings, **{f"{t}.repeats": k for t, k in repeats.items()}}
        config = self.config.model_copy(update={"repeats": None, "settings": settings})
        plans = tuple(
            replace(
                p,
                repeats=repeats[p.task.spec.id],
                is_uneven=bool((counts[p.task.spec.id] < repeats[p.task.spec.id]).any()),
            )
            for p in self.plans
        )
        with open_run(config, self.profile, plans, self.facts) as run:
            yield run


async def drive_candidate(
    config: RunConfig, base: Arm, policy: GatePolicy, reporter: Reporter, *, now: datetime
) -> Decided:
    """Generate the candidate as far as the verdict needs, and return the verdict.

    Raises NotReadyError where the baseline lacks repeats that the policy plans.
    """
    tasks = policy.tasks or tuple(sorted(base.tasks))
    plan = allocated(base, plan_of(base, None, tasks, policy), policy)
    check_baseline(base, plan)
    async with _driver(config, base, policy, reporter) as driver:
        return await _drive(driver, plan, now)


async def generate_whole(
    config: RunConfig, base: Arm, policy: GatePolicy, reporter: Reporter, repeats: Mapping[str, int]
) -> Path:
    """Generate a run of so many repeats in the order of a driven candidate; return its folder."""
    async with _driver(config, base, policy, reporter) as driver:
        whole = Round(repeats={task: (0, k) for task, k in repeats.items()})
        await _generate(driver, DecisionPlan(rounds=(whole,)), 0)
        return driver.folder


@asynccontextmanager
async def _driver(
    config: RunConfig, base: Arm, policy: GatePolicy, reporter: Reporter
) -> AsyncIterator[Driver]:
    """Load the candidate's engine and plan its tasks."""
    config = await with_model(config, reporter)
    profile = find_profile(config)
    plans = plan_tasks(config, profile)
    engine = make_engine(config, profile, answers=answers_of(plans), note=reporter.note)
    async with engine:
        yield Driver(
            config=config,
            base=base,
            policy=policy,
            engine=engine,
            facts=engine.describe(),
            profile=profile,
            plans=plans,
            reporter=reporter,
        )


def _with_stored(stored: Sequence[Round], plan: Sequence[Round]) -> list[Round]:
    """Return the plan of the decision that is under way, grown as far as the new plan goes."""
    grown = list(stored)
    ends = {task: end for task, (_, end) in plan[-1].repeats.items()}
    while all(end <= ends[task] for task, (_, end) in next_round(grown[-1]).repeats.items()):
        grown.append(next_round(grown[-1]))
    return grown


def check_baseline(base: Arm, plan: DecisionPlan) -> None:
    """Refuse a plan that the baseline can't pair."""
    rounds = plan.rounds
    for task, (_, end) in rounds[-1].repeats.items():
        if base.tasks[task].n_repeats < end:
            raise NotReadyError(
                f"{task}: the plan pairs {end} repeats, the baseline has "
                f"{base.tasks[task].n_repeats}",
                where=base.run_id,
                hint="add them: " + "; ".join(missing_commands(rounds, (base,))),
            )


async def _drive(driver: Driver, first: DecisionPlan, now: datetime) -> Decided:
    base, policy = driver.base, driver.policy
    refused = await _canary(driver, first, now)
    if refused is not None:
        return refused
    drift = await _drift(driver)
    says = check_drift(drift, drift_floor(base), policy).says
    if says == "FAIL":  # certain before anything more is generated
        return decide_once(base, arm_of_run(driver.folder), policy, now=now, drift=drift)
    plan = _settled_plan(driver, first, is_escalated=says == "escalate")
    n_paired = sum(_is_paired(base, r) for r in plan.rounds)  # an escalated plan may go further
    index = 0
    while True:
        await _generate(driver, plan, index)
        candidate = arm_of_run(driver.folder)
        is_last = index == n_paired - 1
        if is_last and n_paired == len(plan.rounds) and _may_extend(driver, plan.rounds):
            plan = plan.of([*plan.rounds, next_round(plan.rounds[-1])])
            n_paired += 1
            is_last = False
        decided = decide_once(
            base, candidate, policy, now=now, drift=drift, plan=plan, is_final=is_last
        )
        verdict = decided.record.verdict
        driver.reporter.note(f"round {index + 1} of {len(plan.rounds)}: {verdict}")
        if is_last or verdict != GateVerdict.INCONCLUSIVE:
            return decided
        index += 1


def _settled_plan(driver: Driver, first: DecisionPlan, *, is_escalated: bool) -> DecisionPlan:
    """Return the plan as it is before the first look: the one under way, or the doubled one."""
    stored = stored_plan(driver.base, driver.folder)
    if stored is not None:
        return stored.of(_with_stored(stored.rounds, first.rounds))
    if is_escalated:
        driver.reporter.note("unusual drift: the plan is doubled")
        tasks = tuple(first.rounds[0].repeats)
        longer = plan_of(driver.base, None, tasks, driver.policy, is_escalated=True)
        check_baseline(driver.base, longer.until(1))
        return allocated(driver.base, longer, driver.policy)
    return first


def _is_paired(base: Arm, round_: Round) -> bool:
    return all(base.tasks[task].n_repeats >= end for task, (_, end) in round_.repeats.items())


def _may_extend(driver: Driver, plan: Sequence[Round]) -> bool:
    """Whether the policy lets an open decision go on, and the baseline can pair the next round."""
    policy, following = driver.policy, next_round(plan[-1])
    if policy.on_inconclusive != "extend":
        return False
    pairs = sum(
        len(driver.base.tasks[task].sample_ids) * end
        for task, (_, end) in following.repeats.items()
    )
    if policy.max_pairs is not None and pairs > policy.max_pairs:
        return False
    return _is_paired(driver.base, following)


async def _canary(driver: Driver, first: DecisionPlan, now: datetime) -> Decided | None:
    """L0 before anything is generated, then again with a few prompts and answers."""
    for count in (0, CANARY_SAMPLES):
        with driver.open(first, 0) as run:
            if count:
                await _send(driver, run, first, 0, count)
        candidate = arm_of_run(driver.folder)
        found = check_before_generation(driver.base, candidate, driver.policy)
        if found is not None:
            record = verdict_record(found, driver.base, candidate, driver.policy, now=now)
            return Decided(record=record, judgement=found, path=None)
    return None


async def _generate(driver: Driver, plan: DecisionPlan, index: int) -> None:
    """Generate what a round lacks; failed requests are sent again, with the same seed."""
    for _ in range(TRIES):
        with driver.open(plan, index) as run:
            await _send(driver, run, plan, index, None)
            is_whole = not any(run.store.failed(task) for task in plan.rounds[index].repeats)
        if is_whole:
            return


async def _send(
    driver: Driver, run: OpenedRun, plan: DecisionPlan, index: int, count: int | None
) -> None:
    """Send the round's unanswered requests in schedule order, at most `count`; grade what is left.

    A session may have been killed with everything stored and some of it ungraded.
    """
    by_id, round_ = {p.task.spec.id: p for p in run.plan.tasks}, plan.rounds[index]
    ids = {t: driver.base.tasks[t].sample_ids for t in round_.repeats}
    places = places_of(driver.base, plan, driver.policy)
    tries = list(tries_in_order(round_, ids, driver.policy.decision_seed, places))[:count]
    stored = {t: tries_to_leave_out(t, run.plan, run.store) for t in round_.repeats}
    todo = [t for t in tries if (t.sample_id, t.repeat) not in stored[t.task_id]]
    graded = graded_tasks(run.plan)
    if not todo and not lacks_grades(graded, run.store):
        return
    counts = {task: sum(t.task_id == task for t in todo) for task in round_.repeats}
    done = {task: len(stored[task]) for task in round_.repeats}
    watch = driver.reporter.start(counts, done, run.store)
    try:
        await run_tasks(
            run.plan,
            driver.engine,
            GraderPool(graded),
            run.store,
            watch,
            tries=_planned(run.plan, by_id, todo, run.store),
        )
    finally:
        driver.reporter.stop()


def _planned(
    plan: RunPlan, by_id: Mapping[str, TaskPlan], todo: Sequence[Try], store: RunStore
) -> Iterator[PlannedTry]:
    samples = {task: {s.sample_id: s for s in p.samples} for task, p in by_id.items()}
    begun = {task: store.begun_tries(task) for task in by_id}
    dialogues = {task: task_plan.dialogue for task, task_plan in by_id.items()}
    for t in todo:
        yield PlannedTry(
            plan=plan,
            task_plan=by_id[t.task_id],
            sample=samples[t.task_id][t.sample_id],
            repeat=t.repeat,
            dialogue=dialogues[t.task_id],
            is_begun=(t.sample_id, t.repeat) in begun[t.task_id],
        )


async def _drift(driver: Driver) -> DriftSummary | None:
    """L2: score the baseline's traces where its own engine has, and the candidate's can."""
    folder = driver.base.folder
    if folder is None or not isinstance(driver.engine, ScoringEngine):
        return None
    choice = TraceChoice()
    base_path = scores_path(folder, driver.base.fingerprint)
    if not base_path.is_file():
        return None
    traces = choose_traces(folder, choice)
    base_scores = load_scores(base_path, traces, choice)
    if base_scores is None:
        return None
    path = scores_path(folder, driver.facts.fingerprint)
    scores = load_scores(path, traces, choice)
    if scores is None:
        scores = await score_traces(driver.engine, traces, choice.top_k)
        save_scores(path, traces, scores, choice)
        scores = load_scores(path, traces, choice) or scores  # in the precision of the file
    return compare_traces(traces, base_scores, scores).summary
