"""A server that quotes a gated question in what it says, in whatever form, leaks none of it."""

import base64
import json
import logging
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from g4eval.cli.entry import main
from g4eval.store.reader import RunReader
from g4eval.withholding import withheld
from tests.tasks.test_gated import ROWS, ZOO

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "escaped": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "percent": quote,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "repr": repr,
    "hyphens": lambda text: re.sub(r"\W+", "-", text),
    "token ids": lambda text: str([ord(c) for c in text]),
}
NAMES = ("robin-morning-9b", "it", "a-carp-in-a-pond")  # of models, with words of questions
WORDS = {w for row in ROWS for text in row.values() for w in re.findall(r"[a-z]{5,}", text.lower())}


def leaks(text: str) -> list[str]:
    """Return the words of a question that stand in `text`, in one of the forms."""
    shown = text.lower()
    decoded = shown.encode().decode("unicode_escape", "replace")
    found = sorted(word for word in WORDS if word in shown or word in decoded)
    for row in ROWS:
        for form in ("base64", "percent", "token ids", "escaped"):
            whole = FORMS[form](row["question"])
            found += [form for i in range(0, len(whole) - 24, 8) if whole[i : i + 24] in text]
    return found


@pytest.fixture
def echoing():
    """Start a server that answers every request with `status` and the prompt in a form."""
    servers = []

    def start(form: str, status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                self.reply(200, {"data": [{"id": "m"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = FORMS.get(form, str)(body["messages"][-1]["content"])
                if status == 200 and form in NAMES:
                    choice = {"message": {"content": "Answer: A"}, "finish_reason": "stop"}
                    usage = {"prompt_tokens": 1, "completion_tokens": 1}
                    self.reply(200, {"model": form, "choices": [choice], "usage": usage})
                elif status == 200:
                    choice = {"message": {"content": "Answer: A"}, "finish_reason": prompt}
                    usage = {"prompt_tokens": 1, "completion_tokens": 1}
                    self.reply(200, {"model": prompt, "choices": [choice], "usage": usage})
                else:
                    self.reply(status, {"error": {"message": f"cannot answer {prompt} now"}})

            def reply(self, status: int, value: object) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("name", NAMES)
def test_a_models_name_may_have_words_of_some_questions(
    echoing, tmp_path, monkeypatch, quick_cli, name
) -> None:
    family = tmp_path / "tasks" / "zoo"
    family.mkdir(parents=True)
    (family / "zoo.yaml").write_text(ZOO)
    (family / "prompt.jinja").write_text("{{ question }} {{ choices.A }} or {{ choices.B }}?")
    (family / "zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = quick_cli("run", "zoo", "--tasks-dir", "tasks", "--engine", "openai", "--model", "m",
                     "--base-url", echoing(name, 200), "--run-id", "r", "--repeats", "4",
                     "--set", "engine.stream=false")  # fmt: skip
    assert done.returncode == 0, done.stderr
    with RunReader(tmp_path / "runs" / "r") as run:
        assert {completion.model for completion in run.completions("zoo")} == {None, name}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 401, 200])
def test_no_word_of_a_question_reaches_a_file_a_log_or_the_screen(
    echoing, tmp_path, monkeypatch, capsys, form, status
) -> None:
    family = tmp_path / "tasks" / "zoo"
    family.mkdir(parents=True)
    (family / "zoo.yaml").write_text(ZOO)
    (family / "prompt.jinja").write_text("{{ question }} {{ choices.A }} or {{ choices.B }}?")
    (family / "zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    command = ["g4eval", "run", "zoo", "--tasks-dir", "tasks", "--engine", "openai", "--model",
               "m", "--base-url", echoing(form, status), "--run-id", "r", "--log-file", "log",
               "-v", "--set", "engine.first_wait_seconds=0.01", "--set", "engine.max_retries=1",
               "--set", "engine.stream=false"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    for handler in logging.getLogger("g4eval").handlers[:]:
        logging.getLogger("g4eval").removeHandler(handler)
        handler.close()
    out, err = capsys.readouterr()
    assert left.value.code in (0, 1, 4, 5), err
    assert leaks(out + err) == []
    assert leaks((tmp_path / "log").read_text()) == []
    database = tmp_path / "runs" / "r" / "run.sqlite"
    if not database.exists():
        return  # nothing was begun
    rows = []
    with closing(sqlite3.connect(database)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            rows += [str(row) for row in connection.execute(f"SELECT * FROM {table}").fetchall()]
    assert leaks("\n".join(rows)) == []
    assert leaks((tmp_path / "runs" / "r" / "manifest.json").read_text()) == []


def test_what_an_error_says_for_itself_stays() -> None:
    said = withheld(
        "HTTP 400: context length of 8192 tokens exceeded by robin", {"robin", "length"}
    )
    assert said.startswith("HTTP 400: context length of 8192 tokens exceeded by …")


def test_errors_of_other_tasks_pass_as_they_are(quick_cli, tmp_path) -> None:
    done = quick_cli("run", "demo_math", "--engine", "fake", "--model", "m", "--limit", "2",
                     "--set", "engine.failed_share=1", "--log-file", "log")  # fmt: skip
    assert done.returncode == 5
    assert "engine fake was asked to fail this one" in (tmp_path / "log").read_text()
