"""Prompts as the model sees them: turns, the thinking switch, `<bos>` exactly once.

The templates here are our own, written from the published description of the formats; each
expected text is written out.
"""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.engines.gemma.chat import ChatFormat, template_hash  # noqa: E402  after the skips
from g4eval.engines.gemma.templates import read_template  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402
from g4eval.records import Message  # noqa: E402

GEMMA3 = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set first = messages[0].content + '\n\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant must alternate') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\n' + (first or '' if loop.first else '') }}
    {{- message.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}
"""
GEMMA4 = """\
{{ bos_token }}
{%- set has_system = messages[0].role == 'system' %}
{%- if enable_thinking or has_system %}
    {{- '<|turn>system\n' + ('<|think|>\n' if enable_thinking else '') }}
    {%- if has_system %}{{- messages[0].content | trim }}{% endif %}
    {{- '<turn|>\n' }}
{%- endif %}
{%- for message in (messages[1:] if has_system else messages) %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<|turn>' + role + '\n' + message.content | trim + '<turn|>\n' }}
{%- endfor %}
{{- '<|turn>model\n' }}
{%- if closes_thought and not enable_thinking %}
    {{- '<|channel>thought\n<channel|>' }}
{%- endif %}
"""
SMALL = "{% set closes_thought = false %}" + GEMMA4  # E2B, E4B
LARGE = "{% set closes_thought = true %}" + GEMMA4  # 12B, 26B-A4B, 31B
HI = (Message(role="user", content=" Hi "),)
TALK = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello"),
    Message(role="user", content="Bye"),
)


@pytest.fixture
def codec(make_tiny, add_tokenizer):
    tiny = make_tiny("gemma3")
    add_tokenizer(tiny.folder)
    return tiny.open().codec


@pytest.mark.parametrize(
    ("template", "thinking", "messages", "expected"),
    [
        (
            GEMMA3,
            False,
            TALK,
            "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        (SMALL, False, HI, "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"),
        (
            SMALL,
            True,
            HI,
            "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n",
        ),
        (
            LARGE,
            False,
            HI,
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        ),
        (
            LARGE,
            True,
            TALK,
            "<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n"
            "<|turn>model\nHello<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n",
        ),
        (None, False, HI, " Hi "),
        (None, False, TALK[:2], "Be brief.\n\nHi"),
    ],
    ids=["gemma3", "small off", "small on", "large off", "large on", "base", "base, two messages"],
)
def test_a_conversation_is_written_as_the_format_says(
    template, thinking, messages, expected, codec
):
    assert ChatFormat(codec, template, thinking=thinking).render(messages) == expected


@pytest.mark.parametrize("template", [None, SMALL, "{{ messages[0].content }}"])
def test_bos_stands_first_exactly_once(template, codec):
    ids = ChatFormat(codec, template, thinking=False).prompt(HI).token_ids
    assert ids[0] == 2
    assert ids.count(2) == 1


def test_markers_become_single_tokens(codec):
    ids = ChatFormat(codec, LARGE, thinking=False).prompt(HI).token_ids
    # <bos> <|turn> user\n Hi <turn|> \n <|turn> model\n <|channel> thought\n <channel|>
    assert [i for i in ids if i < 10] == [2, 5, 6, 5, 7, 8]


@pytest.mark.parametrize(
    ("end", "inside"),
    [("", False), ("<|channel>thought\n", True), ("<|channel>thought\n<channel|>", False)],
)
def test_a_prompt_that_ends_inside_a_thought_says_so(end, inside, codec):
    template = "{{ messages[0].content }}" + end
    assert ChatFormat(codec, template, thinking=True).prompt(HI).starts_inside is inside


def test_a_template_that_refuses_is_our_error_with_its_words(codec):
    twice = (HI[0], HI[0])
    with pytest.raises(EngineError, match="user and assistant must alternate"):
        ChatFormat(codec, GEMMA3, thinking=False).render(twice)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_cant_reach_past_its_arguments(template, codec):
    with pytest.raises(EngineError, match="the chat template refuses"):
        ChatFormat(codec, template, thinking=False).render(HI)


def test_a_broken_template_is_refused(codec):
    with pytest.raises(EngineError, match="not valid Jinja"):
        ChatFormat(codec, "{% for %}", thinking=False)


def test_the_template_is_found_in_either_file(tmp_path):
    assert read_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    assert read_template(tmp_path) == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert read_template(tmp_path) == "new"


def test_the_hash_is_that_of_the_text():
    # printf abc | sha256sum
    assert template_hash("abc").startswith("ba7816bf8f01cfea")
