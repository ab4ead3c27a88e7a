"""What the documents tell people to type exists: sessions, commands, flags, engine options."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from g4eval.cli.main import COMMANDS, cli
from g4eval.engines.fake import FakeOptions
from g4eval.engines.openai_http import OpenAIOptions
from g4eval.engines.vllm_options import VllmOptions

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOW = {"name", "on", "jobs"}


def sessions() -> set[str]:
    """The names of nox's sessions, read from noxfile.py: nox itself isn't installed everywhere."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if "nox.session" in ast.unparse(decorator):
                    given = re.search(r"name='([^']+)'", ast.unparse(decorator))
                    names.add(given[1] if given else node.name)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EVALS":
            names |= ast.literal_eval(node.value).keys()
    return names


def commands_of(document: Path) -> Iterator[str]:
    """Command lines: of shell and workflow blocks, and inline ones, continued lines joined."""
    text = document.read_text()
    for language, block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "yaml":
            for run in runs_in(yaml.safe_load(block)):
                yield from run.replace("\\\n", " ").splitlines()
        else:
            yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def runs_in(value: Any) -> Iterator[str]:
    """Every `run` of a workflow or a part of one."""
    if isinstance(value, dict):
        if isinstance(value.get("run"), str):
            yield value["run"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from runs_in(item)


def words_after(program: str, command: str) -> list[list[str]]:
    """What follows each call of a program in a command line, up to a comment, pipe or next call."""
    calls = re.findall(rf"(?:^|[\s;(]){program} ([^#|;&]*)", command)
    return [call.split() for call in calls]


def flags(words: list[str]) -> set[str]:
    return {m[0] for w in words if (m := re.match(r"--[a-z][a-z-]*", w.strip("[](),.")))}


def options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_exist(document: Path) -> None:
    unknown = []
    for command in commands_of(document):
        for words in words_after("g4eval", command):
            if not words or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
                continue
            if words[0] not in COMMANDS:
                unknown.append(f"g4eval {words[0]}")
            else:
                unknown += [f"{words[0]} {f}" for f in flags(words) - options_of(words[0])]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_sessions_and_their_flags_exist(document: Path) -> None:
    of_evals = options_of("run") | {"--tasks", "--quick", "--online"}
    unknown = []
    for command in commands_of(document):
        for words in words_after("nox", command):
            if words[:1] != ["-s"]:
                continue
            stop = words.index("--") if "--" in words else len(words)
            names = [re.sub(r"-3\.\d+$", "", word) for word in words[1:stop]]  # tests-3.11
            unknown += [name for name in names if name not in sessions()]
            if words[1].startswith("eval-"):
                unknown += sorted(flags(words[stop + 1 :]) - of_evals)
    assert unknown == []


def test_engine_options_in_commands_exist() -> None:
    known = {*VllmOptions.model_fields, *OpenAIOptions.model_fields, *FakeOptions.model_fields}
    known |= gemma_options()
    given = {
        name
        for document in DOCUMENTS
        for command in commands_of(document)
        for name in re.findall(r"\bengine\.([a-z_]+)(?==)", command)
    }
    assert len(given) > 5
    assert given - known == set()


def gemma_options() -> set[str]:
    """The fields of GemmaOptions, read from its source: importing it needs torch."""
    tree = ast.parse((ROOT / "g4eval/engines/gemma/options.py").read_text())
    (options,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "GemmaOptions")
    return {n.target.id for n in options.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]  # plain names


def test_workflows_are_ones_that_github_takes() -> None:
    blocks = [
        yaml.safe_load(block)
        for document in DOCUMENTS
        for block in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    ]
    workflows = [block for block in blocks if isinstance(block, dict) and "jobs" in block]
    assert len(workflows) == 2
    for workflow in workflows:
        # YAML 1.1 reads the key `on` as true; GitHub reads it as text.
        assert {"on" if key is True else key for key in workflow} == WORKFLOW
        for job in workflow["jobs"].values():
            assert job["runs-on"]
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step), step
                assert "@" in step.get("uses", "@"), step
                assert step.keys() <= {"name", "run", "uses", "with", "if", "env", "id"}, step
