import pytest

from g4eval.gating.schedule import information_fractions, plan_rounds, tries_in_order

NIGHTLY = {"aime26": 16, "gpqa_diamond": 8, "bbeh_mini": 4}


def test_group_sequential_rounds_give_every_task_its_share():
    rounds = plan_rounds(NIGHTLY, design="gst", looks=4)
    assert [dict(r.repeats)["aime26"] for r in rounds] == [(0, 4), (4, 8), (8, 12), (12, 16)]
    assert [r.share("bbeh_mini") for r in rounds] == [1, 1, 1, 1]


def test_a_task_with_fewer_repeats_than_looks_limits_the_rounds():
    assert len(plan_rounds({"aime26": 8, "bbeh_mini": 2}, design="gst", looks=4)) == 2
    assert len(plan_rounds({"aime26": 4, "bbeh": 1}, design="gst", looks=4)) == 1


def test_fixed_is_one_round():
    assert plan_rounds(NIGHTLY, design="fixed", looks=4)[0].repeats["aime26"] == (0, 16)


def test_more_repeats_add_rounds_to_an_anytime_plan_and_change_none():
    short = plan_rounds(NIGHTLY, design="anytime", looks=4)
    long = plan_rounds({t: 2 * k for t, k in NIGHTLY.items()}, design="anytime", looks=4)
    assert long[:4] == short
    assert len(long) == 8


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_rounds_hold_every_repeat_once(design):
    for repeats in ({"a": 7, "b": 5}, {"a": 3}, {"a": 12, "b": 18}):
        rounds = plan_rounds(repeats, design=design, looks=3)
        for task, k in repeats.items():
            covered = [
                j for r in rounds for j in range(int(r.repeats[task][0]), int(r.repeats[task][1]))
            ]
            assert covered == list(range(k))


def test_a_round_holds_every_sample_of_every_task():
    round_ = plan_rounds({"a": 4, "b": 2}, design="gst", looks=2)[1]
    ids = {"a": ["x", "y"], "b": ["z"]}
    tries = list(tries_in_order(round_, ids, 0))
    assert {(t.task_id, t.sample_id, t.repeat) for t in tries} == {
        ("a", "x", 2), ("a", "x", 3), ("a", "y", 2), ("a", "y", 3), ("b", "z", 1),
    }  # fmt: skip


def test_order_inside_a_round_depends_on_the_decision_seed_alone():
    round_ = plan_rounds({"a": 1}, design="fixed", looks=1)[0]
    ids = [f"s{i}" for i in range(20)]
    first = [t.sample_id for t in tries_in_order(round_, {"a": ids}, 0)]
    assert first == [t.sample_id for t in tries_in_order(round_, {"a": ids[::-1]}, 0)]
    assert first != [t.sample_id for t in tries_in_order(round_, {"a": ids}, 1)]
    assert first != sorted(first)


def test_information_grows_with_the_inverse_of_the_variance():
    rounds = plan_rounds({"a": 4, "b": 4}, design="gst", looks=4)
    assert information_fractions(rounds, {"a": 10, "b": 40}) == [0.25, 0.5, 0.75, 1.0]
    # Repeats 1 then 2 of a, 1 then 3 of b: (1/20 + 1/30) / (1/10 + 1/10)
    rounds = plan_rounds({"a": 2, "b": 3}, design="gst", looks=2)
    assert information_fractions(rounds, {"a": 10, "b": 10}) == [pytest.approx(5 / 12), 1.0]
