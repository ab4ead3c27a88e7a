import pytest

from g4eval.config import SamplingParams
from g4eval.records import Chat, Completion, Message, Request, StopReason, Thought
from g4eval.responses import build_completion, parse_stop_reason, split_reasoning

REQUEST = Request(
    key="k",
    task_id="demo_math",
    task_version=1,
    sample_id="s",
    repeat=0,
    prompt=Chat((Message(role="user", content="?"),)),
    sampling=SamplingParams(),
    seed=1,
)


def complete(
    text: str, stop: str = "stop", *, thinking: bool = False, reasoning: str | None = None
) -> Completion:
    return build_completion(REQUEST, text, StopReason(stop), thinking=thinking, reasoning=reasoning)


def test_gemma_4_channel_is_split_from_the_answer() -> None:
    split = split_reasoning("<|channel>thought\nTwo and two.<channel|>It is 4.<turn|>")
    assert split.reasoning == "Two and two."
    assert split.text == "It is 4."
    assert split.thought is Thought.CLOSED


def test_think_tags_are_split_from_the_answer() -> None:
    split = split_reasoning("<think>\nhm\n</think>\n\n4")
    assert (split.reasoning, split.text) == ("\nhm\n", "\n\n4")


def test_closing_marker_without_opener_ends_a_thought_that_the_prompt_opened() -> None:
    split = split_reasoning("so it is 5</think>5")
    assert (split.reasoning, split.text, split.thought) == ("so it is 5", "5", Thought.CLOSED)


def test_empty_closed_thought_leaves_the_answer() -> None:
    split = split_reasoning("<|channel>thought\n<channel|>7<turn|>\n<eos>")
    assert (split.reasoning, split.text, split.thought) == ("", "7", Thought.CLOSED)


def test_text_without_markers_keeps_its_blanks() -> None:
    split = split_reasoning("  7 \n")
    assert (split.reasoning, split.text, split.thought) == (None, "  7 \n", Thought.NONE)


def test_bare_label_of_small_models_is_dropped() -> None:
    assert split_reasoning("thought\n7").text == "7"


def test_opening_marker_without_its_close_is_an_unfinished_thought() -> None:
    split = split_reasoning("<think>maybe \\boxed{4}")
    assert (split.text, split.thought) == ("", Thought.OPEN)


def test_second_thought_left_open_is_an_unfinished_thought() -> None:
    assert split_reasoning("<think>a</think>4<think>or 5").thought is Thought.OPEN


def test_other_marker_inside_a_thought_does_not_close_it() -> None:
    split = split_reasoning("<think>the tag <channel|> means…</think>4")
    assert (split.text, split.thought) == ("4", Thought.CLOSED)


def test_thinking_cut_off_before_any_marker_is_an_unfinished_thought() -> None:
    cut = complete("so \\boxed{4} is", "length", thinking=True)
    assert cut.thought is Thought.OPEN


def test_text_cut_off_with_thinking_off_is_an_answer() -> None:
    cut = complete("so \\boxed{4} is", "length", thinking=False)
    assert cut.thought is Thought.NONE
    assert cut.is_truncated


def test_closed_thought_with_a_cut_answer_is_graded_and_counts_as_truncated() -> None:
    cut = complete("<think>a</think>It is \\boxed{4}, since", "length", thinking=True)
    assert (cut.thought, cut.text) == (Thought.CLOSED, "It is \\boxed{4}, since")
    assert cut.is_truncated


def test_reasoning_field_of_a_server_is_a_closed_thought() -> None:
    completion = complete("4", thinking=True, reasoning="two and two")
    assert (completion.thought, completion.reasoning) == (Thought.CLOSED, "two and two")


def test_reasoning_field_cut_off_before_any_text_is_an_unfinished_thought() -> None:
    assert complete("", "length", thinking=True, reasoning="two and").thought is Thought.OPEN


def test_thinking_that_stops_by_itself_without_markers_is_an_answer() -> None:
    assert complete("It is \\boxed{4}", "stop", thinking=True).thought is Thought.NONE


def test_raw_text_is_kept_only_where_it_differs() -> None:
    assert complete("4").raw_text is None
    assert complete("<think>a</think>4").raw_text == "<think>a</think>4"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (None, "stop"),
        ("stop", "stop"),
        ("eos", "stop"),
        ("LENGTH", "length"),
        ("max_tokens", "length"),
        ("content_filter", "filtered"),
    ],
)
def test_stop_words_of_engines_are_mapped(word: str | None, reason: str) -> None:
    assert parse_stop_reason(word) == reason


def test_unknown_stop_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'tired' is not a stop reason"):
        parse_stop_reason("tired")
