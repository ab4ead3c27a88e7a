"""What a bundled family's plugin may import."""

import ast
import sys

import pytest

from g4eval.bundled import bundled_dir

ALLOWED = {
    "g4eval.records",
    "g4eval.errors",
    "g4eval.graders.extract",
    "g4eval.tasking.code_tests",
}
PLUGINS = sorted(bundled_dir("tasks").glob("*/plugin.py"))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_a_plugin_imports_the_standard_library_and_four_modules_of_ours(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {name for name in imported if name.partition(".")[0] == "g4eval"}
    assert ours <= ALLOWED
    assert {n.partition(".")[0] for n in imported - ours} <= sys.stdlib_module_names


def test_there_are_plugins_to_look_at():
    assert {path.parent.name for path in PLUGINS} >= {"aime", "bbeh", "livecodebench"}
