"""What `g4eval doctor` finds on a machine that the test has arranged."""

import json
import sys

import pytest

from g4eval.cli.entry import main
from g4eval.doctor import examine

TASK = """\
id: zoo
version: 1
title: Zoo
licence: invented
data:
  rows: 2
  hint: ask a keeper
  sources:
    - {kind: directory, path: zoo.jsonl, columns: {sample_id: id, target: right}}
    - {kind: hub, dataset: somebody/zoo}
prompts:
  default: {template: prompt.jinja, source: invented}
grader: choice
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty machine: no data, no weights, no token, no Docker."""
    family = tmp_path / "tasks" / "zoo"
    family.mkdir(parents=True)
    (family / "zoo.yaml").write_text(TASK)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "G4EVAL_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("PATH", "")
    return tmp_path


def _find(machine, area, name):
    findings = examine(
        data_dir=machine / "data", tasks_dir=machine / "tasks", runs_dir=machine / "runs"
    )
    (found,) = [f for f in findings if (f.area, f.name) == (area, name)]
    return found


@pytest.mark.parametrize(
    ("rows", "state", "detail"),
    [
        (0, "missing", "'zoo' has 2 rows, and 0 are here"),
        (1, "partial", "1 of 2 rows, text not verified"),
        (2, "ok", "2 of 2 rows, text not verified"),
        (3, "missing", "'zoo' has 2 rows, and 3 are here"),
    ],
)
def test_data_is_read_and_counted(machine, rows, state, detail):
    (machine / "data").mkdir()
    lines = [json.dumps({"id": f"z{n}", "right": "A"}) + "\n" for n in range(rows)]
    (machine / "data" / "zoo.jsonl").write_text("".join(lines))
    found = _find(machine, "data", "zoo")
    assert (found.state, found.detail) == (state, detail)
    assert (found.hint == "ask a keeper") is (state != "ok")


def test_data_that_is_nowhere_is_missing_and_the_hub_is_not_asked(machine):
    found = _find(machine, "data", "zoo")
    assert (found.state, found.detail) == ("missing", "the data of 'zoo' can't be found")


def test_weights_in_the_hubs_cache_are_found(machine):
    assert _find(machine, "weights", "gemma-3-270m").state == "missing"
    (machine / "hf" / "hub" / "models--google--gemma-3-270m-it" / "snapshots" / "a1").mkdir(
        parents=True
    )
    assert _find(machine, "weights", "gemma-3-270m").state == "ok"
    assert _find(machine, "weights", "gemma-4-31b").state == "missing"


def test_a_token_is_found_and_never_shown(machine, monkeypatch):
    assert _find(machine, "hub", "token").state == "missing"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = _find(machine, "hub", "token")
    assert (found.state, found.detail) == ("ok", "set")


@pytest.mark.parametrize(("area", "name"), [("docker", "daemon"), ("gpu", "cuda")])
def test_what_does_not_answer_is_missing_and_says_what_it_is_for(machine, area, name):
    found = _find(machine, area, name)
    assert found.state == "missing"
    assert found.hint


def test_a_packages_version_is_told_and_what_an_extra_lacks(machine):
    found = _find(machine, "package", "data")
    if found.state == "ok":
        assert found.detail.startswith("datasets ")
    else:
        assert "lacks datasets" in found.hint


def test_the_command_prints_every_finding_and_exits_0(machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["g4eval", "doctor", "--json"])
    with pytest.raises(SystemExit) as leave:
        main()
    findings = json.loads(capsys.readouterr().out)
    assert leave.value.code == 0
    assert {f["area"] for f in findings} == {
        "python",
        "package",
        "gpu",
        "docker",
        "data",
        "hub",
        "weights",
        "disk",
    }


def test_the_text_says_how_to_get_what_is_missing(machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["g4eval", "doctor"])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    (place,) = [n for n, line in enumerate(lines) if line.startswith("docker daemon")]
    assert lines[place].split()[2] == "missing"
    assert lines[place + 1].strip().startswith(("try: start Docker", "try: pip install"))


def test_building_the_sandbox_without_docker_is_refused(machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["g4eval", "doctor", "--build-sandbox"])
    with pytest.raises(SystemExit) as leave:
        main()
    assert leave.value.code == 5
    assert "docker" in capsys.readouterr().err.lower()


def test_a_file_that_is_there_is_not_asked_for(machine):
    (machine / "data").mkdir()
    (machine / "data" / "zoo.jsonl").write_text(json.dumps({"id": "z0", "right": "A"}) + "\n")
    family = machine / "tasks" / "zoo" / "zoo.yaml"
    family.write_text(family.read_text().replace("ask a keeper", "put zoo.jsonl into the folder"))
    found = _find(machine, "data", "zoo")
    assert found.state == "partial"
    assert "put zoo.jsonl" not in found.hint
    assert "zoo.jsonl is here" in found.hint


def test_a_data_folder_that_is_not_there_is_an_error(quick_cli, tmp_path):
    for given in (["--data-dir", "nowhere"], []):
        done = quick_cli("doctor", *given, **({} if given else {"G4EVAL_DATA_DIR": "nowhere"}))
        assert done.returncode == 5
        assert "the data folder doesn't exist" in done.stderr
        assert "at: nowhere" in done.stderr
    (tmp_path / "file").touch()
    assert quick_cli("doctor", "--data-dir", "file").returncode == 5
