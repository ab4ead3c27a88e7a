"""A third party's mistakes and bad data: what a user is told, to the byte, and the exit code.

The families here are invented and written by the tests. `nox -s golden` writes the files again.
"""

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from g4eval.cli.entry import main
from tests.golden.golden import check_golden

DATA = 5
USAGE = 2

# zoo.csv with two rows of four columns, zipped with the password "sesame" by Info-ZIP.
LOCKED_ZIP = base64.b64decode(
    "UEsDBBQACQAIAGGPeF3Ep03lVQAAAFcAAAAHAAAAem9vLmNzdqIw7qO6Kaato8cH66C4ZQg1mA3n"
    "xXDllXaOaWRioSm+HacmAZAMxS9NPQr11BzIWsfMZnWFskNtOjCTvX2snglMM36Q9cwdO7OctCNu"
    "oQjgiq8CY29QSwcIxKdN5VUAAABXAAAAUEsBAh4DFAAJAAgAYY94XcSnTeVVAAAAVwAAAAcAAAAA"
    "AAAAAQAAAKSBAAAAAHpvby5jc3ZQSwUGAAAAAAEAAQA1AAAAigAAAAAA"
)

TASK = """\
id: zoo
version: 1
title: Zoo
licence: invented
{gated}data:
  rows: 2
{targets}  sources:
    - {source}
      columns: {{sample_id: id, target: right, question: question, options: [right, wrong]}}
prompts:
  default: {{template: prompt.jinja, source: invented}}
grader: choice
{more}"""

ROWS = [
    {"id": "z1", "question": "Which is a bird?", "right": "owl", "wrong": "cod"},
    {"id": "z2", "question": "Which is a fish?", "right": "cod", "wrong": "owl"},
]


class Zoo:
    """A third party's family, in a folder of its own."""

    def __init__(self, root):
        self.tasks, self.data, self.family = root / "tasks", root / "data", root / "tasks" / "zoo"
        self.family.mkdir(parents=True)
        self.data.mkdir()
        self.rows(ROWS)
        self.prompt("{{ question }} {{ choices.A }} or {{ choices.B }}?")
        self.task()

    def task(self, *, source="{kind: directory, path: zoo.jsonl", more="", targets="", gated=""):
        source = source.removeprefix("{").replace(", ", "\n      ")
        text = TASK.format(source=source, more=more, targets=targets, gated=gated)
        (self.family / "zoo.yaml").write_text(text)

    def rows(self, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.data / "zoo.jsonl").write_text(text)

    def prompt(self, text):
        (self.family / "prompt.jinja").write_text(text)

    def plugin(self, text):
        (self.family / "plugin.py").write_text(text)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("G4EVAL_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return Zoo(tmp_path)


@pytest.fixture
def told(zoo, tmp_path, monkeypatch, capsys):
    """Run `g4eval run` on the family; return its exit code and what it says."""

    def run(*arguments, task="zoo", data_dir=None, before=()):
        argv = ["g4eval", *before, "run", task, "--engine", "fake", "--tasks-dir", str(zoo.tasks)]
        argv += ["--data-dir", str(data_dir or zoo.data), "--runs-dir", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", [*argv, *arguments])
        with pytest.raises(SystemExit) as leave:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        assert not (tmp_path / "runs").exists()  # nothing was planned, let alone generated
        return leave.value.code, err.replace(str(tmp_path), "TMP")

    return run


def test_an_unknown_key_of_a_task(zoo, told):
    zoo.task(more="repeat: 4\n")
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/unknown_key.txt", text)


def test_a_value_that_breaks_its_rule(zoo, told):
    zoo.task(more="repeats: 0\n")
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/broken_rule.txt", text)


def test_a_task_that_is_no_yaml(zoo, told):
    (zoo.family / "zoo.yaml").write_text("id: zoo\n  version: 1\n")
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/no_yaml.txt", text)


def test_a_prompt_that_names_a_field_no_sample_has(zoo, told):
    zoo.prompt("{{ question }} {{ passage }}")
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/prompt_field.txt", text)


def test_a_prompt_that_is_no_template(zoo, told):
    zoo.prompt("What is\n{{ question }?")
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/prompt_syntax.txt", text)


def test_a_grader_that_nobody_has(zoo, told):
    zoo.task()
    path = zoo.family / "zoo.yaml"
    path.write_text(path.read_text().replace("grader: choice", "grader: choices"))
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/grader_name.txt", text)


def test_a_plugin_that_raises(zoo, told):
    zoo.plugin('"""Zoo."""\n\n\ndef to_sample(row, source):\n    return 1 / len(row["wings"])\n')
    zoo.rows([{**ROWS[0], "wings": ""}, ROWS[1]])
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/plugin_raises.txt", text)


def test_a_plugin_that_cannot_be_imported(zoo, told):
    zoo.plugin('"""Zoo."""\n\nimport nowhere_to_be_found\n')
    code, text = told()
    assert code == USAGE
    check_golden("bad_tasks/plugin_import.txt", text)


def test_a_plugin_of_a_gated_task_that_quotes_a_question(zoo, told):
    zoo.task(gated="gated: true\n")
    zoo.plugin(
        '"""Zoo."""\n\n\ndef prompt_fields(sample, repeat):\n'
        '    raise ValueError(sample.fields["question"])\n'
    )
    code, text = told()
    assert code == USAGE
    assert "bird" not in text
    assert "bird" not in told(before=["--debug"])[1]  # nor in a traceback
    check_golden("bad_tasks/plugin_gated.txt", text)


def test_a_column_that_the_data_lacks(zoo, told):
    zoo.rows([{k: v for k, v in ROWS[0].items() if k != "wrong"}, ROWS[1]])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/column.txt", text)


def test_a_column_that_a_plugin_misses(zoo, told):
    zoo.plugin('"""Zoo."""\n\n\ndef to_sample(row, source):\n    return row["wings"]\n')
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/column_plugin.txt", text)


def test_a_row_without_a_target(zoo, told):
    zoo.rows([ROWS[0], {**ROWS[1], "right": ""}])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/empty_row.txt", text)


def test_no_row_at_all(zoo, told):
    zoo.rows([])
    code, text = told("--allow-partial-data")
    assert code == DATA
    check_golden("bad_tasks/no_row.txt", text)


def test_a_row_that_is_there_twice(zoo, told):
    zoo.rows([ROWS[0], ROWS[0]])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/doubled_row.txt", text)


def test_a_row_too_few(zoo, told):
    zoo.rows(ROWS[:1])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/partial.txt", text)


def test_a_row_too_many(zoo, told):
    zoo.rows([*ROWS, {**ROWS[1], "id": "z3"}])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/surplus.txt", text)


def test_another_target(zoo, told):
    zoo.task(targets="  targets: zoo.targets\n")
    (zoo.family / "zoo.targets").write_text(f"z1 {'0' * 16}\nz2 {'0' * 16}\n")
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/another_target.txt", text)


def test_a_row_that_the_targets_do_not_name(zoo, told):
    zoo.task(targets="  targets: zoo.targets\n")
    (zoo.family / "zoo.targets").write_text(f"z1 {'0' * 16}\n")
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/unknown_row.txt", text)


def test_a_text_that_is_known_and_different(zoo, told):
    zoo.task(source=f"{{kind: directory, path: zoo.jsonl, text_sha256: {'ab' * 32}")
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/another_text.txt", text)


def test_a_file_that_is_no_json(zoo, told):
    (zoo.data / "zoo.jsonl").write_text('{"id": "z1"\n')
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/no_json.txt", text)


def test_data_that_is_nowhere(zoo, told, tmp_path):
    code, text = told(data_dir=tmp_path / "elsewhere")
    assert code == DATA
    check_golden("bad_tasks/no_data.txt", text)


@pytest.mark.parametrize(
    ("name", "password"),
    [("archive_no_password", ""), ("archive_wrong_password", ", password: open")],
)
def test_an_archive_that_its_password_does_not_open(zoo, told, name, password):
    zoo.task(source=f"{{kind: directory, path: zoo.zip, member: zoo.csv{password}")
    (zoo.data / "zoo.zip").write_bytes(LOCKED_ZIP)
    code, text = told()
    assert code == DATA
    check_golden(f"bad_tasks/{name}.txt", text)


def test_an_archive_that_is_cut_short(zoo, told):
    zoo.task(source="{kind: directory, path: zoo.zip, member: zoo.csv, password: sesame")
    (zoo.data / "zoo.zip").write_bytes(LOCKED_ZIP[:-20])
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/archive_cut.txt", text)


def test_an_archive_without_the_file(zoo, told):
    zoo.task(source="{kind: directory, path: zoo.zip, member: pets.csv, password: sesame")
    (zoo.data / "zoo.zip").write_bytes(LOCKED_ZIP)
    code, text = told()
    assert code == DATA
    check_golden("bad_tasks/archive_member.txt", text)


def test_the_right_password_opens_the_archive(zoo, tmp_path, monkeypatch, capsys):
    zoo.task(source="{kind: directory, path: zoo.zip, member: zoo.csv, password: sesame")
    path = zoo.family / "zoo.yaml"
    columns = "{sample_id: Record, target: Right, question: Question, options: [Right, Wrong]}"
    text = path.read_text()
    path.write_text(text.replace(text[text.index("{sample_id") : text.index("\nprompts")], columns))
    (zoo.data / "zoo.zip").write_bytes(LOCKED_ZIP)
    argv = ["g4eval", "run", "zoo", "--engine", "fake", "--tasks-dir", str(zoo.tasks)]
    monkeypatch.setattr(sys, "argv", [*argv, "--data-dir", str(zoo.data)])
    with pytest.raises(SystemExit) as leave:
        main()
    assert leave.value.code == 0
    assert "zoo" in capsys.readouterr().out


class _GatedHub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does to somebody without a token."""

    def do_GET(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this dataset is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815  the library's name

    def log_message(self, *args):
        pass


def test_a_gated_hub_set_without_a_token(zoo, tmp_path):
    pytest.importorskip("datasets")
    zoo.task(source="{kind: hub, dataset: somebody/zoo")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _GatedHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        env |= {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
        }
        argv = [sys.executable, "-m", "g4eval", "run", "zoo", "--engine", "fake"]
        argv += ["--tasks-dir", str(zoo.tasks)]
        done = subprocess.run(
            argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        hub.shutdown()
    assert done.returncode == DATA
    said = re.sub(r"(?m)^working, .*\n", "", done.stderr)  # how slow the machine was
    check_golden("bad_tasks/gated_hub.txt", said.replace(str(tmp_path), "TMP"))


def test_another_text_is_refused_with_the_flag_for_partial_data_as_well(zoo, told):
    zoo.task(source=f"{{kind: directory, path: zoo.jsonl, text_sha256: {'ab' * 32}")
    code, text = told("--allow-partial-data")
    assert code == DATA
    check_golden("bad_tasks/another_text.txt", text)
