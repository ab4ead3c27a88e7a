"""Prompts are those of the folder that is meant, wherever the process has gone meanwhile."""

from pathlib import Path

from g4eval.graders.pool import GraderRef
from g4eval.tasking.prompts import render_messages
from g4eval.tasking.spec import PromptSpec

GRADER = """
from g4eval.records import Grade, Outcome

class Fixed:
    name = "fixed"
    version = {version}

    def grade(self, one_try):
        return Grade(key=one_try.completions[-1].key, grader="fixed", grader_version={version},
                     outcome=Outcome.CORRECT)

    def example(self, sample, *, right):
        return None
"""


def make_families(tmp_path: Path) -> list[Path]:
    places = [tmp_path / "first", tmp_path / "second"]
    for number, place in enumerate(places, 1):
        folder = place / "tasks" / "zoo"
        folder.mkdir(parents=True)
        (folder / "prompt.jinja").write_text(f"{number}: {{{{ question }}}}")
        (folder / "plugin.py").write_text(GRADER.format(version=number))
    return places


def test_one_relative_folder_in_two_working_directories_is_two(tmp_path, monkeypatch) -> None:
    said, versions = [], []
    for place in make_families(tmp_path):
        monkeypatch.chdir(place)
        folder = Path("tasks/zoo")
        spec = PromptSpec(template="prompt.jinja", source="invented")
        (message,) = render_messages(spec, folder, {"question": "Q"}, task_id="zoo")
        said.append(message.content)
        versions.append(GraderRef("Fixed", folder).load().version)
    assert said == ["1: Q", "2: Q"]
    assert versions == [1, 2]
