"""Chat templates: found wherever they are kept, never left out silently, never stronger than us."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.base import EngineConfig  # noqa: E402
from g4eval.engines.gemma.chat import ChatFormat  # noqa: E402
from g4eval.engines.gemma.engine import GemmaEngine  # noqa: E402
from g4eval.engines.gemma.templates import read_template, says_instruct  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402
from g4eval.records import Attempt, Message  # noqa: E402

T = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|turn>' + m.role + '\n' + m.content + '<turn|>\n' }}{% endfor %}{{ '<|turn>model\n' }}"
)
OTHER = "another {{ messages[0].content }}"
HI = [Message(role="user", content="Hi")]


def write(folder, files):
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": T},
        {"chat_template.jinja": T, "tokenizer_config.json": {"chat_template": OTHER}},
        {"chat_template.jinja": " \n", "tokenizer_config.json": {"chat_template": T}},
        {"chat_template.json": {"chat_template": T}},
        {"processor_config.json": {"chat_template": T}},
        {"tokenizer_config.json": {"chat_template": T}},
        {
            "tokenizer_config.json": {
                "chat_template": [
                    {"name": "tool_use", "template": OTHER},
                    {"name": "default", "template": T},
                ]
            }
        },
        {"tokenizer_config.json": {"chat_template": {"default": T, "rag": OTHER}}},
        {"tokenizer_config.json": {"chat_template": [{"name": "chat", "template": T}]}},
        {"additional_chat_templates/rag.jinja": T},
        {
            "additional_chat_templates/default.jinja": T,
            "additional_chat_templates/rag.jinja": OTHER,
        },
    ],
    ids="+".join,
)
def test_a_template_is_found_wherever_it_is_kept(files, tmp_path):
    write(tmp_path, files)
    assert read_template(tmp_path) == T


@pytest.mark.parametrize(
    "files",
    [{}, {"chat_template.jinja": ""}, {"tokenizer_config.json": {"chat_template": None}}],
    ids=["nothing", "blank", "null"],
)
def test_no_template_is_none(files, tmp_path):
    write(tmp_path, files)
    assert read_template(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"chat_template.jinja": T.encode("utf-16")}, "is not UTF-8"),
        ({"chat_template.jinja": b"\xff\xfe"}, "is not UTF-8"),
        ({"tokenizer_config.json": json.dumps({"a": 1}).encode("utf-16")}, "is not UTF-8"),
        ({"tokenizer_config.json": "[]"}, "is not a JSON object"),
        ({"tokenizer_config.json": "[" * 100_000}, "nested too deeply"),
        ({"tokenizer_config.json": {"chat_template": 3}}, "neither text nor named texts"),
        ({"tokenizer_config.json": {"chat_template": [{"name": 1}]}}, "neither text nor"),
        ({"tokenizer_config.json": {"chat_template": [[]]}}, "neither text nor named texts"),
        (
            {"tokenizer_config.json": {"chat_template": {"rag": T, "tool_use": OTHER}}},
            "several chat templates, and none is the default: rag, tool_use",
        ),
    ],
)
def test_a_file_that_is_off_is_named(files, words, tmp_path):
    write(tmp_path, files)
    with pytest.raises(EngineError, match=words) as caught:
        read_template(tmp_path)
    assert str(tmp_path) in str(caught.value.where)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gemma-3-27b-it", True),
        ("gemma-4-31B-it-Q4_K_M.gguf", True),
        ("My_Gemma.Instruct.v2", True),
        ("gemma-chat", True),
        ("gemma-3-270m", False),
        ("gemma-3-27b-pt", False),
        ("italian-gemma", False),
        ("chatty", False),
    ],
)
def test_names_say_whether_a_model_was_tuned_for_instructions(name, says):
    assert bool(says_instruct(name)) is says


@pytest.fixture
def codec(make_tiny, add_tokenizer):
    tiny = make_tiny("gemma3")
    add_tokenizer(tiny.folder)
    return tiny.open().codec


def enter(folder, profile=None, **options):
    """Load an engine far enough to know its template; return its checkpoint."""
    config = EngineConfig(model=str(folder), options={"threads": 1, **options}, profile=profile)
    engine = GemmaEngine.configure(config)
    return engine._load().checkpoint


def test_an_instruct_model_without_a_template_is_refused_unless_asked_for(make_tiny, tmp_path):
    tiny = make_tiny("gemma3")
    folder = tiny.folder.rename(tiny.folder.with_name("gemma-3-tiny-it"))
    with pytest.raises(EngineError, match="has no chat template, and 'gemma-3-tiny-it' says"):
        enter(folder)
    assert enter(folder, prompt="plain").template is None
    write(folder, {"chat_template.json": {"chat_template": T}})
    assert enter(folder).template == T
    assert enter(folder, prompt="plain").template is None


def test_the_checkpoints_own_files_may_say_that_it_was_tuned(make_tiny):
    folder = make_tiny("gemma3").folder
    config = json.loads((folder / "config.json").read_text())
    write(folder, {"config.json": config | {"model_name": "google/gemma-3-1b-it"}})
    with pytest.raises(EngineError, match="'google/gemma-3-1b-it' says that it was tuned"):
        enter(folder)


def test_a_base_model_runs_plain_and_says_so(make_tiny):
    checkpoint = enter(make_tiny("gemma3").folder)
    assert checkpoint.template is None
    assert "prompts go out plain" in checkpoint.notes[0]


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0].content + messages[0].get('reasoning_content') }}",
        "{{ messages[0].content[10 ** 6 :][0] | int('x', 2, 3, 4) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 12 }}",
        "{% include 'chat_template.jinja' %}",
        "{{ strftime_now('%d %b %Y') }}",
        "{{ raise_exception('System role not supported') }}",
    ],
)
def test_whatever_a_template_raises_is_its_own_error(template, codec):
    with pytest.raises(EngineError, match="chat template"):
        ChatFormat(codec, template, thinking=False).check()


def test_markers_of_training_frameworks_and_arguments_of_tojson_are_understood(codec):
    template = (
        "{% generation %}{{ messages[0].content }}{% endgeneration %}"
        "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, separators=(',', ':'), "
        "sort_keys=True) }}"
    )
    text = ChatFormat(codec, template, thinking=False).render(HI)
    assert text == 'Hi{"a":1,"b":"\\u00e9"}'


def test_a_template_that_reads_parts_is_given_parts(codec):
    template = T.replace("m.content", "(m.content | map(attribute='text') | join(''))")
    chat = ChatFormat(codec, template, thinking=False)
    chat.check()
    assert chat.render(HI) == ChatFormat(codec, T, thinking=False).render(HI)


def test_a_template_that_leaves_the_question_out_is_refused(codec):
    with pytest.raises(EngineError, match="leaves the user's message out"):
        ChatFormat(codec, "{{ bos_token }}<|turn>model\n", thinking=False).check()


@pytest.mark.parametrize("marker", ["<start_of_turn>", "<|im_start|>", "<|end>", "<turn_end|>"])
def test_a_marker_that_is_no_token_is_refused(marker, codec):
    chat = ChatFormat(codec, T + marker, thinking=False)
    with pytest.raises(EngineError, match="which is no token of this model") as caught:
        chat.check()
    assert repr(marker) in caught.value.what


def test_markers_that_are_tokens_pass(codec):
    ChatFormat(codec, T, thinking=False).check()


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_bos_stands_first_once_however_often_it_is_written(times, codec):
    ids = ChatFormat(codec, "{{ bos_token }}" * times + T[15:], thinking=False).prompt(HI).token_ids
    assert ids.count(codec.bos_id) == 1
    assert ids[0] == codec.bos_id


def test_a_turn_ends_at_the_markers_own_token_whatever_the_files_list(make_tiny, add_tokenizer):
    tiny = make_tiny("gemma3")
    add_tokenizer(tiny.folder)  # <turn|> is 6; generation_config.json doesn't list it
    ends = {}
    for template in (T, None):
        write(tiny.folder, {"chat_template.jinja": template or ""})
        engine = GemmaEngine.configure(EngineConfig(model=str(tiny.folder), options={"threads": 1}))
        engine._loaded = engine._load()
        prepared = engine._prepare(_request(), engine._loaded.scheduler)
        assert not isinstance(prepared, Attempt)
        ends[template] = prepared.rule.stop_ids
    assert 6 in ends[T]
    assert 6 not in ends[None]  # of a base model it is text


def _request():
    from g4eval.records import Chat, Request

    return Request(
        key="k",
        task_id="t",
        task_version=1,
        sample_id="s",
        repeat=0,
        prompt=Chat(tuple(HI)),
        sampling=SamplingParams(max_new_tokens=4),
        seed=1,
    )
