"""A third party's task family: its YAML, rows, templates and plugin."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from g4eval.graders.base import grade_try
from g4eval.graders.plugin_grader import checked_grade, try_grader
from g4eval.graders.pool import GraderRef
from g4eval.records import Completion, StopReason, Try
from g4eval.tasking import worker
from g4eval.tasking.conversion import selected
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import load_task
from tests.fuzz.border import CORPUS, HOSTILE, Border, mutated_bytes, mutated_json

SEEDS = {path.name: path.read_bytes() for path in sorted((CORPUS / "families").iterdir())}
TASK = yaml.safe_load(SEEDS["zoo.yaml"])
ROWS = [json.loads(line) for line in SEEDS["rows.jsonl"].splitlines()]
IDLE_SECONDS = 1.0
_NUMBER = itertools.count()

_VALUES = [
    "None",
    "1",
    "'x'",
    "[]",
    "{}",
    "{'a': 1}",
    "[1]",
    "object()",
    "float('nan')",
    "lambda: 1",
]
_VALUES += ["b'x'", "{1: 2}", "'\\ud800'", "10 ** 400", "iter([])", "print('x')", "Sample", "args"]
_ACTS = ["pass", "1 / 0", "raise SystemExit(0)", "raise KeyboardInterrupt", "raise GeneratorExit"]
_ACTS += ["raise TimeoutError", "import os; os._exit(0)", "import os; os.fork()", "print('x')"]
_ACTS += ["raise MemoryError", "def f(): f()\n    f()", "import sys; sys.stdout = None", "del args"]
_TEMPLATES = [
    "{{ QUESTION | center(NUMBER) }}",
    "{{ QUESTION * NUMBER }}",
    "{{ NUMBER ** NUMBER }}",
    "{{ QUESTION.replace('', QUESTION) }}",
    "{{ QUESTION | replace('i', QUESTION * 9) | replace('i', QUESTION * 99) }}",
    "{{ '%NUMBERd' | format(1) }}{{ '%NUMBERs' % 'x' }}{{ '{:NUMBER}'.format(1) }}",
    "{{ QUESTION | list | join(QUESTION * 99) | wordwrap(1) | indent(NUMBER) }}",
    "{% for a in range(NUMBER) %}BODY{% endfor %}",
    "{% set ns = namespace(a=QUESTION) %}{% for i in QUESTION %}{% set ns.a = ns.a ~ ns.a %}BODY"
    "{% endfor %}",
    "{% set ns = namespace(a=[1]) %}{% for i in QUESTION %}{% set ns.a = [ns.a, ns.a] %}"
    "{% endfor %}{{ ns.a OP ns.a }}",
    "{% macro f(n) %}BODY{{ f(n OP 1) }}{{ f(n OP 1) }}{% endmacro %}{{ f(NUMBER) }}",
    "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(NUMBER) }}",
    "{{ QUESTION OP NUMBER }}{{ [QUESTION] OP [NUMBER] }}",
    "{% include QUESTION %}",
    "{% filter upper %}BODY{% endfilter %}{% block b %}BODY{{ self.b() }}{% endblock %}",
    "{{ QUESTION | batch(NUMBER) | list }}{{ QUESTION | slice(NUMBER) | list }}",
    "{{ QUESTION | int(NUMBER) }}{{ NUMBER | string | reverse | tojson(NUMBER) }}",
    "{{ QUESTION.METHOD(NUMBER) }}{{ QUESTION.METHOD(QUESTION, NUMBER) }}",
    "{{ dict(a=QUESTION) | xmlattr | urlize(NUMBER) | striptags | truncate(NUMBER) }}",
]  # fmt: skip
_METHODS = "ljust rjust center zfill expandtabs join format encode translate split splitlines count"


def read_family(files: dict[str, bytes], folder: Path) -> None:
    """Do with a family what a run does before its first request, and grade an answer."""
    worker.IDLE_SECONDS = worker.GRACE_SECONDS = IDLE_SECONDS
    place = folder / f"zoo{next(_NUMBER)}"  # templates and plugins are kept by their path
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    task = load_task(place / "zoo.yaml")
    grader = GraderRef.of(task).load()
    samples = load_samples(task, None, allow_partial=True).samples
    for sample in selected(task, samples, dict(task.spec.settings)):
        task.messages(sample, 0)
        if task.spec.grader.startswith("plugin:"):
            try_grader(grader, place, sample)
            continue
        completion = Completion(
            key="k", task_id="t", sample_id=sample.sample_id, repeat=0, text="Answer: A \\boxed{1}",
            stop_reason=StopReason.STOP,
        )  # fmt: skip
        one_try = Try(task_id="t", sample=sample, repeat=0, completions=(completion,))
        checked_grade(grade_try(grader, one_try), grader, one_try)


@st.composite
def _template(draw: Any) -> bytes:
    text = draw(st.sampled_from(_TEMPLATES))
    for _ in range(draw(st.integers(0, 2))):
        text = text.replace("BODY", draw(st.sampled_from([*_TEMPLATES, "x" * 999])))
    names = {
        "NUMBER": st.sampled_from(["3", "30", "10000", "99999", "100000", "10**9", "-1", "'x'"]),
        "QUESTION": st.sampled_from(["question", "'ab' * 1000", "[1, 2]", "range(9999)"]),
        "METHOD": st.sampled_from(_METHODS.split()),
        "OP": st.sampled_from(["+", "-", "*", "**", "%", "~", "==", "in", "//", "<"]),
    }
    for name, values in names.items():
        while name in text:
            text = text.replace(name, draw(values), 1)
    return str(text).encode()


@st.composite
def _plugin(draw: Any) -> bytes:
    act, value = st.sampled_from(_ACTS), st.sampled_from(_VALUES)
    hooks = draw(
        st.lists(
            st.sampled_from(["to_sample", "to_samples", "select", "prompt_fields"]),
            max_size=3,
            unique=True,
        )
    )
    lines = ["from g4eval.records import Grade, Outcome, Sample"]
    if not draw(st.integers(0, 5)):
        lines.append(draw(act).replace("\n    ", "\n").replace("del args", "pass"))
    for hook in hooks:
        lines += [f"def {hook}(*args):", f"    {draw(act)}", f"    return {draw(value)}"]
    lines += ["class Own:", f"    name = {draw(st.sampled_from(['own', *_VALUES]))!r}"]
    lines += [f"    version = {draw(st.sampled_from(['1', '1', '1', *_VALUES]))}"]
    lines += ["    def grade(self, *args):", f"        {draw(act)}".replace("\n    ", "\n        ")]
    lines += [f"        return {draw(value)}"]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _with(**files: Any) -> Any:
    """The family of the corpus, some of its files changed."""
    return st.fixed_dictionaries(files).map(
        lambda changed: {**SEEDS, **{name.replace("__", "."): d for name, d in changed.items()}}
    )


def _lines(data: bytes) -> bytes:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, list):
            return "\n".join(json.dumps(row) for row in value).encode()
    return data


_yaml = st.one_of(mutated_json([TASK]), mutated_bytes([SEEDS["zoo.yaml"]]))
_rows = mutated_json([ROWS]).map(_lines)
_choice = {**TASK, "grader": "choice"}
_columns = {**TASK["data"]["sources"][0]["columns"], "options": "options"}
_choice["data"] = {"rows": 9, "sources": [{**TASK["data"]["sources"][0], "columns": _columns}]}
_options = st.lists(st.sampled_from([*HOSTILE, "x", "y"]), max_size=6).map(
    lambda options: json.dumps({**ROWS[0], "target": "x", "options": options})
)
_own = json.dumps({**TASK, "grader": "plugin:Own"}).encode()

BORDERS = [
    Border(name="task-yaml", inputs=_with(zoo__yaml=_yaml), read=read_family),
    Border(name="task-rows", inputs=_with(rows__jsonl=_rows), read=read_family),
    Border(
        name="task-options",
        inputs=_with(
            zoo__yaml=st.just(json.dumps(_choice).encode()),
            rows__jsonl=_options.map(str.encode),
        ),
        read=read_family,
    ),
    Border(name="task-template", inputs=_with(prompt__jinja=_template()), read=read_family, few=30),
    Border(
        name="task-plugin",
        inputs=_with(zoo__yaml=st.just(_own), plugin__py=_plugin()),
        read=read_family,
        few=30,
    ),
]
