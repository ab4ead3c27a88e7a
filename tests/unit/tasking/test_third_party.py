"""A third party's family: each of its mistakes is told as its own, with the place, and soon."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from g4eval.config import RunConfig
from g4eval.errors import DataError, G4EvalError, TaskError
from g4eval.graders.plugin_grader import checked_grade, grade_fault
from g4eval.graders.pool import GradedTask, GraderPool, GraderRef
from g4eval.planning import plan_tasks
from g4eval.records import Completion, Grade, Outcome, Sample, StopReason
from g4eval.tasking import worker
from g4eval.tasking.loader import find_tasks
from tests.driving import try_of

YAML = {
    "id": "zoo",
    "version": 1,
    "title": "Zoo",
    "licence": "invented",
    "data": {
        "rows": 2,
        "sources": [
            {
                "kind": "package",
                "path": "rows.jsonl",
                "columns": {"sample_id": "id", "target": "target", "question": "question"},
            }
        ],
    },
    "prompts": {"default": {"template": "prompt.jinja", "source": "invented"}},
    "grader": "integer",
}
ROWS = [
    {"id": "a", "target": 1, "question": "One?"},
    {"id": "b", "target": 2, "question": "Two?"},
]
TO_SAMPLE = """
from g4eval.records import Sample


def to_sample(row, source):
    {body}
    return Sample(sample_id=row["id"], target=row["target"], fields={{"question": "Q"}})
"""
GRADER = """
from g4eval.records import Grade, Outcome


class Own:
    name = "own"
    version = 1

    def grade(self, one_try):
        sample, completion = one_try.sample, one_try.completion
        {body}

    def example(self, sample, repeat, *, right):
        return "x"
"""


@pytest.fixture
def family(tmp_path):
    """Write a family: `family(yaml=..., rows=..., prompt=..., plugin=...)`."""
    folder = tmp_path / "tasks" / "zoo"
    folder.mkdir(parents=True)

    def write(*, yaml=None, rows=ROWS, prompt="{{ question }}", plugin=None):
        value = yaml if isinstance(yaml, str) else json.dumps({**YAML, **(yaml or {})})
        (folder / "zoo.yaml").write_text(value)
        lines = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
        (folder / "rows.jsonl").write_text(lines)
        (folder / "prompt.jinja").write_text(prompt)
        if plugin is not None:
            (folder / "plugin.py").write_text(plugin)
        return folder

    return write


def plan(folder, **settings):
    config = RunConfig(tasks=("zoo",), tasks_dir=folder.parent, engine="fake", set=settings)
    return plan_tasks(config, None)


def refusal(folder, **settings):
    with pytest.raises(G4EvalError) as caught:
        plan(folder, **settings)
    return caught.value


def line_of(folder, text, name="plugin.py"):
    path = folder / name
    lines = path.read_text().splitlines()
    return f"{path}:{next(n for n, line in enumerate(lines, 1) if text in line)}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", True),
        ("version", 1.5),
        ("repeats", 10**9),
        ("repeats", True),
        ("metrics", ["acuracy"]),
        ("metrics", []),
        ("metrics", ["accuracy", "macro"]),
        ("max_new_tokens", 10**18),
        ("gated", "perhaps"),
        ("title", "x" * 20_000),
        ("title", ["Zoo"]),
        ("grader", 3),
        ("id", "z" * 300),
    ],
)
def test_a_key_of_another_type_or_size_is_named_with_its_line(key, value, family):
    text = "\n".join(f"{k}: {json.dumps({**YAML, key: value}[k])}" for k in {**YAML, key: value})
    error = refusal(family(yaml=text)) if key != "id" else None
    if error is None:
        with pytest.raises(TaskError) as caught:
            find_tasks(family(yaml=text).parent)
        error = caught.value
    assert isinstance(error, TaskError)
    # A rule of two keys together names the file alone.
    assert ("zoo.yaml" if value == ["accuracy", "macro"] else "zoo.yaml:") in str(error.where)


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join('*' + p for _ in range(10))}]\n"
    for p, n in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [LAUGHS, "a: &a [*a]", "[" * 20_000, "x: " + "9" * 5_000, "? [a]\n: 3", "x" * 300_000, "", "3"],
    ids=["laughs", "itself", "deep", "digits", "list as key", "long", "empty", "number"],
)
def test_yaml_that_is_too_much_is_refused_soon(text, family):
    begun = time.monotonic()
    error = refusal(family(yaml=text))
    assert isinstance(error, TaskError)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("name", "value"),
    [("template", "x" * 300), ("template", "a\0b"), ("template", ""), ("system", "missing.jinja")],
)
def test_a_template_that_is_no_file_is_named(name, value, family):
    prompt = {"template": "prompt.jinja", "source": "invented", name: value}
    error = refusal(family(yaml={"prompts": {"default": prompt}}))
    assert isinstance(error, TaskError)
    assert error.where


@pytest.mark.parametrize(
    "prompt",
    [
        "one\n{{ question | center(10 ** 9) }}",
        "one\n{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "one\n{{ 1 / 0 }}",
        "one\n{% include 'x' %}",
        "one\n{{ question.x.y }}",
        "one\n{{ question + 1 }}",
    ],
)
def test_a_prompt_without_bound_or_sense_is_told_with_its_line(prompt, family):
    error = refusal(family(prompt=prompt))
    assert isinstance(error, TaskError)
    assert str(error.where).endswith("prompt.jinja:2")


def test_a_prompt_that_is_no_utf8_is_told(family):
    folder = family()
    (folder / "prompt.jinja").write_bytes("{{ question }}".encode("utf-16"))
    assert "is not UTF-8" in refusal(folder).what


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"id": "a", "target": NaN, "question": "Q"}', "not finite"),
        ('{"id": "a", "target": 1e400, "question": "Q"}', "not finite"),
        ('{"id": "a", "target": [1], "question": "Q"}', "the target is no number"),
        ('{"id": "a", "target": "seven", "question": "Q"}', "the target is no number"),
        ('{"id": "a", "target": true, "question": "Q"}', "the target is no number"),
        ('{"id": "a", "target": {"x": 1}, "question": "Q"}', "the target is no number"),
        ('{"id": "a", "target": "\\ud800", "question": "Q"}', "surrogate pair"),
        ('{"id": "a", "target": 1, "question": "\\ud800"}', "surrogate pair"),
        ('{"id": "a", "target": 1, "question": Infinity}', "not finite"),
        ('{"id": ["a"], "target": 1, "question": "Q"}', "the id is list"),
        ('{"id": "' + "a" * 600 + '", "target": 1, "question": "Q"}', "the id is no text"),
        ('{"id": "a", "target": 1, "question": ' + "[" * 50 + "]" * 50 + "}", "too deeply"),
    ],
)
def test_a_row_that_holds_what_it_may_not_is_told_with_its_number(row, words, family):
    good = json.dumps(ROWS[1]) + "\n"
    error = refusal(family(rows=good + row + "\n"))
    assert isinstance(error, DataError)
    assert words in error.what
    assert str(error.where).endswith("rows.jsonl, row 2")


@pytest.mark.parametrize("target", [7, "7", 7.0, "7/2", "073"])
def test_targets_that_read_as_numbers_are_taken(target, family):
    assert plan(family(rows=[{**ROWS[0], "target": target}, ROWS[1]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["x"], "options: 1, where 2 to 4"),
        (["x", "b", "c", "d", "e"], "options: 5, where 2 to 4"),
        (["a", "b"], "not among the options"),
        (["x", "x", "b"], "two options are right"),
        ("xyz", "options: str"),
        ({"x": 1}, "options: dict"),
    ],
)
def test_options_that_cannot_be_shown_are_told(options, words, family):
    source = {
        "kind": "package",
        "path": "rows.jsonl",
        "columns": {"sample_id": "id", "target": "target", "options": "options"},
    }
    rows = [{"id": n, "target": "x", "options": options} for n in "ab"]
    yaml = {"data": {"rows": 2, "sources": [source]}, "grader": "choice"}
    error = refusal(family(yaml=yaml, rows=rows, prompt="{{ choices.A }}"))
    assert isinstance(error, DataError)
    assert words in error.what


ENDINGS = [
    ("import sys; sys.exit(0)", "SystemExit"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise SystemExit", "SystemExit"),
    ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    ("raise GeneratorExit", "GeneratorExit"),
    ("1 / 0", "ZeroDivisionError"),
    ("import os; os._exit(0)", "ended the process that ran it"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended the process that ran it"),
    ("x = bytearray(64 << 30)", "MemoryError"),
    ("while True: pass", "no progress for 1 s"),
    ("import time; time.sleep(600)", "no progress for 1 s"),
]


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(worker, "IDLE_SECONDS", 1.0)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(("body", "words"), ENDINGS)
@pytest.mark.parametrize("place", ["import", "to_sample", "select", "prompt_fields", "grade"])
def test_whatever_a_plugin_does_is_told_as_its_own(place, body, words, family, monkeypatch):
    call = f"def {place}(*args):\n    {body}\n"
    yaml: dict[str, object] = {"settings": {"wide": 1}}
    plugin = {
        "import": f"{body}\n",
        "to_sample": TO_SAMPLE.format(body=body),
        "select": call,
        "prompt_fields": TO_SAMPLE.format(body="pass") + call,
        "grade": GRADER.format(body=body),
    }[place]
    if place == "grade":
        yaml["grader"] = "plugin:Own"
        if "Error" in words:
            pytest.skip("one answer's failure is told with its grade")
    folder = family(yaml=yaml, plugin=plugin)
    error = refusal(folder)
    assert isinstance(error, TaskError)
    assert words in error.what
    ended = "ended" in words
    assert error.where == (str(folder / "plugin.py") if ended else line_of(folder, body))


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("to_sample", "return None", "returned NoneType, not a Sample"),
        ("to_sample", "return {'sample_id': 'a', 'target': 1}", "returned dict, not a Sample"),
        ("to_sample", "return 7", "returned int, not a Sample"),
        ("to_samples", "return None", "returned NoneType, not a list of samples"),
        ("to_samples", "return [1, 2]", "returned int, not a Sample"),
        ("to_samples", "return {'a': 1}", "returned dict, not a list of samples"),
        ("select", "return None", "returned NoneType, not a list of samples"),
        ("select", "return [1]", "what isn't samples it was given"),
        ("select", "return args[0] * 2", "what isn't samples it was given"),
        ("prompt_fields", "return None", "returned NoneType, not fields by name"),
        ("prompt_fields", "return [1]", "returned list, not fields by name"),
        ("prompt_fields", "return {1: 2}", "returned dict, not fields by name"),
    ],
)
def test_a_hook_that_returns_something_else_is_named_with_its_line(name, body, words, family):
    folder = family(plugin=f"def {name}(*args):\n    {body}\n")
    error = refusal(folder)
    assert isinstance(error, TaskError)
    assert words in error.what
    assert error.where == line_of(folder, f"def {name}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sample_id=7", "the id is no text"),
        ("groups={'a': 1}", "the groups are not texts"),
        ("groups=None", "the groups are not texts"),
        ("fields=[1]", "the fields are not values by name"),
        ("fields={'a': {1, 2}}", "set, which JSON can't"),
        ("fields={'a': lambda: 1}", "function, which JSON can't"),
        ("fields={1: 'a'}", "a name that is no text"),
        ("target=object()", "object, which JSON can't"),
    ],
)
def test_a_sample_with_parts_of_other_types_is_told_with_its_row(change, words, family):
    name = change.partition("=")[0]
    facts = {"sample_id": "row['id']", "target": "1", "fields": "{}", "groups": "{}"}
    given = ", ".join(f"{k}={v}" for k, v in {**facts, name: change.partition("=")[2]}.items())
    plugin = (
        "from g4eval.records import Sample\n\n\n"
        f"def to_sample(row, source):\n    return Sample({given})\n"
    )
    error = refusal(family(plugin=plugin))
    assert isinstance(error, DataError)
    assert words in error.what
    assert "row 1" in str(error.where)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("", "has no class 'Own'"),
        ("Own = 3", "int, no class, 'Own'"),
        ("def Own(): pass", "function, no class, 'Own'"),
        ("class Own:\n    def __init__(self, x): pass", "can't make a Own: TypeError"),
        ("class Own:\n    def __init__(self): raise SystemExit(0)", "can't make a Own: SystemExit"),
        ("class Own:\n    version = 1", "has no name"),
        ("class Own:\n    name = 'own'\n    version = '1'", "has no version"),
        ("class Own:\n    name = 'own'\n    version = True", "has no version"),
        ("class Own:\n    name = 'own'\n    version = 1", "has no grade"),
        (GRADER.format(body="return None"), "returned NoneType, not a Grade"),
        (GRADER.format(body="return 1"), "returned int, not a Grade"),
        (GRADER.format(body="return {'outcome': 'correct'}"), "returned dict, not a Grade"),
    ],
)
def test_a_grader_that_is_none_is_told_before_anything_is_generated(plugin, words, family):
    error = refusal(family(yaml={"grader": "plugin:Own"}, plugin=plugin))
    assert isinstance(error, TaskError)
    assert words in error.what
    assert "plugin.py" in str(error.where)


def test_without_a_plugin_its_grader_is_missing(family):
    error = refusal(family(yaml={"grader": "plugin:Own"}))
    assert "there is no plugin" in error.what


COMPLETION = Completion(
    key="k", task_id="zoo", sample_id="a", repeat=0, text="x", stop_reason=StopReason.STOP
)
TRY = try_of(Sample(sample_id="a", target=1), COMPLETION)


class Named:
    name = "own"
    version = 1


def grade(**changes):
    facts = {"key": "k", "grader": "own", "grader_version": 1, "outcome": Outcome.CORRECT}
    return Grade(**{**facts, **changes})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned NoneType"),
        (1, "returned int"),
        (grade(key="another"), "another completion's"),
        (grade(grader="other"), "another grader's"),
        (grade(outcome="correct"), "is no Outcome"),
        (grade(outcome=True), "is no Outcome"),
        (grade(lenient_outcome="x"), "is no Outcome"),
        (grade(extraction=7), "is no text"),
        (grade(extraction="x" * (2 << 20)), "too long"),
        (grade(details=[1]), "not values by name"),
        (grade(details={"f": lambda: 1}), "function, which JSON can't"),
        (grade(details={"f": float("nan")}), "not finite"),
        (grade(details={"f": {1: 2}}), "a name that is no text"),
    ],
)
def test_a_grade_that_cannot_be_stored_is_ungraded_and_says_why(value, words):
    kept = checked_grade(value, Named(), TRY)
    assert kept.outcome is Outcome.UNGRADED
    assert words in kept.details["reason"]


def test_a_whole_grade_is_kept_as_it_is():
    whole = grade(extraction="7", details={"reading": "box", "parts": [1, {"a": None}]})
    assert grade_fault(whole, Named(), TRY) is None
    assert checked_grade(whole, Named(), TRY) == whole


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(0)", "SystemExit in the grader at"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt in the grader at"),
        ("raise TimeoutError", "TimeoutError in the grader at"),
        ("1 / 0", "ZeroDivisionError in the grader at"),
        ("return None", "returned NoneType, not a Grade"),
        ("import os; os.fork(); return 3", "returned int, not a Grade"),
    ],
)
def test_a_grader_that_misbehaves_costs_one_grade(body, reason, family):
    folder = family(yaml={"grader": "plugin:Own"}, plugin=GRADER.format(body=body))
    samples = {"a": Sample(sample_id="a", target=1)}
    task = GradedTask("zoo", GraderRef("Own", folder), samples)
    pool = GraderPool([task], workers=1)

    async def run():
        try:
            return await pool.grade_batch(task, [TRY])
        finally:
            pool._stop(pool._executor)

    (kept,) = asyncio.run(run())
    assert kept.outcome is Outcome.UNGRADED
    assert reason in kept.details["reason"]
    if " at" in reason:
        assert line_of(folder, body).removeprefix(f"{folder.parent}/") in kept.details["reason"]


def test_the_line_is_told_for_a_relative_folder_too(family, monkeypatch):
    folder = family(plugin="1\nraise SystemExit(0)\n")
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(TaskError) as caught:
        find_tasks(Path("tasks"))
    assert caught.value.where == "tasks/zoo/plugin.py:2"


def test_what_a_plugin_prints_is_no_data(family, capfd):
    body = "print('to_sample was here')"
    folder = family(plugin="print('plugin was here')\n" + TO_SAMPLE.format(body=body))
    plan(folder)
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_plugin_that_forks_leaves_no_process_behind(family, tmp_path):
    told = tmp_path / "pids"
    body = (
        "import os, time; pid = os.fork(); pid or time.sleep(600); "
        f"open({str(told)!r}, 'a').write(f'{{pid}} ')"
    )
    plan(family(plugin=TO_SAMPLE.format(body=body)))
    pids = told.read_text().split()
    assert len(pids) == 2  # a row each
    deadline = time.monotonic() + 30  # the kernel takes its time to end what was killed
    while any(map(_is_alive, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def test_a_third_partys_samples_are_those_that_it_made(family):
    folder = family(plugin=TO_SAMPLE.format(body="pass"))
    (planned,) = plan(folder)
    expected = [
        Sample(sample_id=n, target=t, fields={"question": "Q"}) for n, t in (("a", 1), ("b", 2))
    ]
    assert list(planned.samples) == expected
