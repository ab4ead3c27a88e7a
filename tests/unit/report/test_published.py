import pytest

from g4eval.report.published import (
    arithmetic,
    counts_that_fit,
    disagreements,
    find_scores,
    primary_score,
    protocol_of,
    published_protocols,
    published_scores,
    smallest_number_of_answers,
)
from tests.unit.report.cases import known


def test_every_row_has_a_source_and_a_score_in_percent():
    rows = published_scores()
    assert len(rows) == 402
    assert all(row.source_id and row.source_title and row.source_locator for row in rows)
    assert all(0 <= row.value <= 1 for row in rows)


def test_google_card_and_report_agree_in_every_cell_they_share():
    card = {(r.model, r.benchmark): r.printed for r in find_scores(source="g4-model-card-hf")}
    report = {(r.model, r.benchmark): r.printed for r in find_scores(source="g4-tech-report")}
    shared = card.keys() & report.keys()
    assert len(shared) == 32
    assert {key: card[key] for key in shared} == {key: report[key] for key in shared}


@pytest.mark.parametrize(
    ("printed", "n", "counts"),
    [
        ("89.2", 120, (107,)),
        ("89.2", 30, ()),  # 26/30 = 86.7 and 27/30 = 90.0
        ("84.3", 198, (167,)),
        ("80.0", 175, (140,)),
        ("44.0", 454, ()),  # 199/454 = 43.8, 200/454 = 44.1
        ("74.4", 460, ()),  # 342/460 = 74.3, 343/460 = 74.6 -> 74.6
        ("50", 3, ()),
        ("100.0", 7, (7,)),
        ("0.0", 7, (0,)),
        ("12.5", 8, (1,)),
    ],
)
def test_counts_that_print_as_a_score(printed, n, counts):
    assert counts_that_fit(printed, n) == counts


def test_a_share_that_ends_in_a_half_fits_under_either_rounding():
    assert counts_that_fit("6.2", 16) == (1,)  # 1/16 = 6.25
    assert counts_that_fit("6.3", 16) == (1,)


@pytest.mark.parametrize(
    ("printed", "n"),
    [
        (("89.2", "88.3", "77.5", "42.5", "37.5", "20.8"), 120),
        (("84.3", "82.3", "78.8", "58.6", "43.4", "42.4", "73.2"), 198),
        (("80.0", "77.1", "72.0", "52.0", "44.0", "29.1", "69.1"), 175),
    ],
)
def test_the_smallest_number_of_answers_behind_googles_scores(printed, n):
    assert smallest_number_of_answers(printed) == n


def test_no_number_of_answers_up_to_the_limit_may_fit():
    assert smallest_number_of_answers(["33.33", "66.6"], limit=10) is None


def test_the_inferred_protocols_show_their_arithmetic():
    shown = {
        (a.protocol.benchmark, a.protocol.sources[0]): a
        for a in map(arithmetic, published_protocols())
        if a is not None
    }
    aime = shown["aime26", "g4-tech-report"]
    assert aime.smallest_n == 120
    assert dict(zip(aime.printed, aime.counts, strict=True)) == {
        "89.2": 107, "88.3": 106, "77.5": 93, "42.5": 51, "37.5": 45, "20.8": 25,
    }  # fmt: skip
    assert shown["livecodebench_v6", "g4-tech-report"].counts == (140, 135, 126, 121, 91, 77, 51)
    assert all(k is not None for k in shown["gpqa_diamond", "g4-tech-report"].counts)


def test_every_inferred_protocol_is_marked_and_argued():
    google = [p for p in published_protocols() if "g4-tech-report" in p.sources]
    assert {p.benchmark for p in google} == {"aime26", "gpqa_diamond", "livecodebench_v6", "bbeh"}
    assert all(p.inferred and p.evidence for p in google)


def test_a_protocol_whose_set_is_unknown_has_no_arithmetic():
    older = next(p for p in published_protocols() if p.benchmark == "livecodebench_unspecified")
    assert older.n_answers is None
    assert arithmetic(older) is None


def test_the_technical_report_comes_before_the_card_and_the_micro_average_before_the_harmonic():
    assert (
        known(primary_score("google/gemma-4-31B-it", "gpqa_diamond")).source_id == "g4-tech-report"
    )
    bbeh = known(primary_score("google/gemma-3-27b-it", "bbeh"))
    assert (bbeh.printed, bbeh.metric) == ("19.3", "micro average")
    assert primary_score("google/gemma-4-31B-it", "no_such_benchmark") is None


def test_a_harmonic_mean_is_not_given_the_protocol_of_the_average():
    harmonic = [r for r in find_scores(benchmark="bbeh") if r.metric.startswith("harmonic")]
    assert harmonic
    assert all(protocol_of(row) is None for row in harmonic)


def test_a_full_name_matches_itself_alone_and_a_word_matches_all_that_hold_it():
    assert {r.benchmark for r in find_scores(benchmark="bbeh")} == {"bbeh"}
    assert {r.benchmark for r in find_scores(benchmark="AIME2")} == {"aime24", "aime25", "aime26"}


def test_the_blog_table_disagrees_with_google_and_both_stand():
    found = disagreements(published_scores())
    gpqa = next(d for d in found if (d.model, d.family) == ("google/gemma-4-31B-it", "gpqa"))
    assert gpqa.scores[0].source_id == "g4-tech-report"
    assert {"84.3", "85.7"} <= {row.printed for row in gpqa.scores}
    code = next(
        d for d in found if (d.model, d.family) == ("google/gemma-4-31B-it", "livecodebench")
    )
    assert {("g4-tech-report", "80.0"), ("blog-table", "84.0")} <= {
        (row.source_id, row.printed) for row in code.scores
    }


def test_aime_of_two_years_and_equal_numbers_are_no_disagreement():
    found = {(d.model, d.family) for d in disagreements(published_scores())}
    assert ("google/gemma-4-31B-it", "aime26") in found  # 89.2 against 90.0 on one sample
    assert ("google/gemma-4-E2B-it", "math_vision") not in found
    assert not any(family == "aime" for _, family in found)
