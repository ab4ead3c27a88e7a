"""LiveCodeBench: the hub's encoding, which problems belong to what, the prompt."""

import base64
import json
import pickle
import zlib
from collections import Counter
from hashlib import sha256

import pytest

from g4eval.bundled import bundled_dir
from g4eval.errors import ConfigError, DataError
from g4eval.jsonlines import read_json_lines
from g4eval.tasking.code_tests import read_tests
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.plugins import load_plugin
from tests.tasks.conftest import bundled_task, from_hub

V6 = "livecodebench/livecodebench_v6.yaml"
WHOLE = "livecodebench/livecodebench.yaml"
plugin = load_plugin(bundled_dir("tasks") / "livecodebench" / "plugin.py")

TESTS = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]


def _packed(data):
    return base64.b64encode(zlib.compress(data)).decode()


def _encoded(tests, protocol=4):
    return _packed(pickle.dumps(json.dumps(tests), protocol=protocol))


def _row(**changes):
    return {
        "question_id": "invented_1",
        "question_content": "Add two numbers.",
        "starter_code": "",
        "platform": "atcoder",
        "difficulty": "easy",
        "contest_date": "2025-02-01T00:00:00",
        "public_test_cases": json.dumps(TESTS),
        "private_test_cases": _encoded(TESTS),
        "metadata": "{}",
        **changes,
    }


@pytest.mark.parametrize("protocol", range(6))
def test_tests_packed_as_the_hub_packs_them_are_unpacked(protocol):
    assert plugin.decode_tests(_encoded(TESTS, protocol)) == TESTS


def test_tests_in_plain_json_and_in_a_list_are_read():
    assert plugin.decode_tests(json.dumps(TESTS)) == TESTS
    assert plugin.decode_tests(TESTS) == TESTS


class _RunsOnLoad:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


REFUSED = {
    "a call": (_packed(pickle.dumps(_RunsOnLoad())), "more than one string"),
    "a global": (_packed(pickle.dumps(exec)), "more than one string"),
    "an old global": (_packed(b"cos\nsystem\n(S'true'\ntR."), "GLOBAL"),
    "an instance": (_packed(b"(S'true'\nios\nsystem\n."), "more than one string"),
    "a persistent id": (_packed(b"P1\n."), "PERSID"),
    "an extension": (_packed(b"\x80\x02\x82\x01."), "EXT1"),
    "a list": (_packed(pickle.dumps(TESTS)), "more than one string"),
    "bytes": (_packed(pickle.dumps(b"[]")), "BINBYTES"),
    "a number": (_packed(pickle.dumps(7)), "BININT1"),
    "nothing": (_packed(pickle.dumps(None)), "NONE"),
    "two strings": (_packed(b"\x80\x04\x8c\x01a\x8c\x01b."), "more than one string"),
    "one pickle after another": (_packed(pickle.dumps("[]") * 2), "not one string alone"),
    "a pickle cut short": (_packed(pickle.dumps("[]" * 50)[:-9]), "cut short"),
    "a pickle of noise": (_packed(b"\xff\xfe\xfd"), "cut short or damaged"),
    "an empty pickle": (_packed(b""), "cut short or damaged"),
    "endless opcodes": (_packed(b"\x80\x04\x8c\x02[]" + b"\x94" * 1000 + b"."), "MEMOIZE"),
    "text that is no JSON": (_packed(pickle.dumps("[{")), "not JSON"),
    "JSON that is no list": (_packed(pickle.dumps('{"input": 1}')), "dict, not a list"),
    "JSON nested too deep": (_packed(pickle.dumps("[" * 200_000)), "not JSON"),
    "truncated base64": (_encoded(TESTS)[:-3], "neither JSON nor base64"),
    "base64 with a stray sign": ("*" + _encoded(TESTS), "neither JSON nor base64"),
    "truncated zlib": (
        base64.b64encode(zlib.compress(pickle.dumps("[]" * 99))[:-6]).decode(),
        "cut short",
    ),
    "something after the zlib stream": (
        base64.b64encode(zlib.compress(pickle.dumps("[]")) + b"more").decode(),
        "something follows",
    ),
    "not zlib": (base64.b64encode(b"plain").decode(), "neither JSON nor base64"),
    "non-ASCII": ("é", "neither JSON nor base64"),
    "a number in place of text": (7, "int, not a list"),
    "null": (None, "NoneType, not a list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_payload_that_is_not_one_string_of_tests_is_refused(name):
    payload, complaint = REFUSED[name]
    with pytest.raises(DataError, match=complaint):
        plugin.decode_tests(payload)


def test_a_zlib_bomb_is_refused_before_it_unfolds(monkeypatch):
    monkeypatch.setattr(plugin, "MAX_TEXT_BYTES", 1 << 20)
    bomb = _packed(pickle.dumps("a" * (64 << 20)))
    assert len(bomb) < 1 << 20
    with pytest.raises(DataError, match="unpack to more than 1 MiB"):
        plugin.decode_tests(bomb)


def test_an_encoded_text_over_the_cap_is_refused(monkeypatch):
    monkeypatch.setattr(plugin, "MAX_ENCODED_BYTES", 10)
    with pytest.raises(DataError, match="packed"):
        plugin.decode_tests(_encoded(TESTS))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "has no tests"),
        ({"private_test_cases": '[{"input": "1", "output": 2, "testtype": "stdin"}]'}, "test 2"),
        ({"private_test_cases": '[{"input": "1", "output": "2"}]'}, "test 2"),
        ({"private_test_cases": '["1"]'}, "test 2"),
        ({"metadata": "{"}, "metadata is not JSON"),
    ],
)
def test_a_row_whose_tests_cannot_be_told_is_refused_by_its_question_id(changes, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        plugin.to_sample(_row(**changes), "hub")
    assert "'invented_1'" in caught.value.what


def test_a_sample_carries_a_name_for_its_tests_and_no_test():
    sample = plugin.to_sample(_row(), "hub")
    assert read_tests(sample.fields["tests"]) == TESTS * 2  # public first, then private
    assert len(json.dumps(dict(sample.fields))) < 300


def test_tests_are_decoded_once(monkeypatch):
    first = plugin.to_sample(_row(), "hub")
    monkeypatch.setattr(plugin, "decode_tests", lambda _: pytest.fail("decoded again"))
    assert plugin.to_sample(_row(), "hub") == first


def test_the_function_to_call_and_the_starter_code_are_the_target():
    row = _row(starter_code="class Solution:\n", metadata='{"func_name": "add"}')
    assert plugin.to_sample(row, "hub").target == {
        "starter_code": "class Solution:\n",
        "fn_name": "add",
    }


def _samples():
    return [
        plugin.to_sample(
            _row(question_id=f"q{day}", contest_date=date, difficulty=difficulty), "hub"
        )
        for day, (date, difficulty) in enumerate(
            [
                ("2024-08-01T00:00:00", "easy"),
                ("2024-12-31T18:30:00", "hard"),
                ("2025-01-31T00:00:00", "medium"),
                ("2025-01-31T06:30:00", "easy"),
            ]
        )
    ]


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({}, ["q0", "q1", "q2", "q3"]),
        ({"start_date": "2024-08-02"}, ["q1", "q2", "q3"]),
        ({"start_date": "2024-08-01", "end_date": "2025-01-31"}, ["q0", "q1", "q2"]),
        ({"difficulty": "easy"}, ["q0", "q3"]),
        ({"difficulty": "easy, hard"}, ["q0", "q1", "q3"]),
        ({"platform": "leetcode"}, []),
        ({"release": "v5"}, []),
        ({"release": "release_v6", "difficulty": "medium"}, ["q2"]),
    ],
)
def test_settings_select_problems(settings, ids):
    assert [s.sample_id for s in plugin.select(_samples(), settings)] == ids


@pytest.mark.parametrize("settings", [{"release": "v3"}, {"start_date": "yesterday"}])
def test_a_setting_that_cannot_be_met_is_refused(settings):
    with pytest.raises(ConfigError, match="is not a"):
        plugin.select(_samples(), settings)


def test_the_constants_of_the_prompt_have_the_published_hashes():
    folder = bundled_dir("tasks") / "livecodebench"
    system = (folder / "system.jinja").read_text()
    assert (len(system), sha256(system.encode()).hexdigest()[:16]) == (185, "d39e6e9b11d2ac7e")
    text = (folder / "prompt.jinja").read_text()
    sentences = [
        line.removeprefix("### Format: ") for line in text.split("\n") if "### Format" in line
    ]
    assert [(len(s), sha256(s.encode()).hexdigest()[:16]) for s in sentences] == [
        (117, "0aa7131f428c2376"),
        (279, "b72556f2e5865749"),
    ]


def test_the_prompt_of_a_program_that_reads_stdin():
    system, user = bundled_task(V6).messages(plugin.to_sample(_row(), "hub"), 0)
    assert system.role == "system"
    head, _, rest = user.content.partition("### Format: ")
    assert head == "### Question:\nAdd two numbers.\n\n"
    assert rest.partition("\n")[2] == (
        "```python\n# YOUR CODE HERE\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


def test_the_prompt_of_a_function_shows_the_starter_code():
    row = _row(starter_code="class Solution:\n    def add(self):\n        ")
    _, user = bundled_task(V6).messages(plugin.to_sample(row, "hub"), 0)
    assert (
        "```python\nclass Solution:\n    def add(self):\n        \n```\n\n### Answer"
        in user.content
    )


def test_the_v6_increment_is_175_questions_by_id_and_v5_the_other_880():
    folder = bundled_dir("tasks") / "livecodebench"

    def ids(name):
        return [line.partition(" ")[0] for line in (folder / name).read_text().split("\n") if line]

    whole, increment, old = map(
        ids, ("livecodebench.targets", "livecodebench_v6.targets", "release_v5_ids.txt")
    )
    assert (len(whole), len(increment), len(old)) == (1055, 175, 880)
    assert set(increment) == set(whole) - set(old)


def test_the_data_folders_problems_are_those_of_the_question_id_list(data_dir):
    rows = [r for _, r in read_json_lines(data_dir / "livecodebench" / "problems.jsonl.gz")]
    new = {r["question_id"] for r in rows if not r["in_submissions_880"]}
    data = load_samples(bundled_task(V6), data_dir, allow_partial=True)
    assert {s.sample_id for s in data.samples} == new
    assert data.incomplete is not None
    assert data.is_partial


def test_fewer_problems_than_stated_are_refused_unless_asked_for(data_dir):
    task = bundled_task(WHOLE)
    count = len(load_samples(task, data_dir, allow_partial=True).samples)
    if count == 1055:
        pytest.skip("all 1,055 problems are here")
    with pytest.raises(DataError, match=f"has 1055 rows, and only {count} are here") as caught:
        load_samples(task, data_dir)
    assert "--allow-partial-data" in (caught.value.hint or "")


def test_the_hubs_own_encoding_is_decoded_on_every_recorded_row(data_dir, tmp_path):
    pytest.importorskip("datasets")
    source = data_dir / "livecodebench" / "hub_encoded_sample.jsonl"
    task = from_hub(bundled_task(WHOLE), source.parent, rows=40, only=(source.name,))
    samples = {s.sample_id: s for s in load_samples(task, None).samples}
    assert len(samples) == 40
    plain = load_samples(bundled_task(WHOLE), data_dir, allow_partial=True).samples
    known = {s.sample_id: s for s in plain}
    equal = Counter(
        read_tests(sample.fields["tests"]) == read_tests(known[name].fields["tests"])
        for name, sample in samples.items()
        if name in known
    )
    assert equal[True] + equal[False] > 0
    assert all(
        s.groups == known[name].groups and s.target == known[name].target
        for name, s in samples.items()
        if name in known
    )
    assert equal[False] <= 1  # 1873_A carries the hub's own, longer list


def test_the_problems_of_the_errata_are_known_ones_and_marked():
    folder = bundled_dir("tasks") / "livecodebench"
    listed = dict(line.split(" ", 1) for line in (folder / "errata.txt").read_text().splitlines())
    known = {
        line.split()[0] for line in (folder / "livecodebench.targets").read_text().splitlines()
    }
    assert len(listed) == 17
    assert listed.keys() <= known
    one, other = (
        plugin.to_sample(_row(question_id=name), "hub") for name in ("abc337_e", "abc337_d")
    )
    assert (one.groups["errata"], other.groups["errata"]) == ("listed", "unlisted")
    assert one.groups["month"] == "2025-02"
