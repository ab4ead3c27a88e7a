"""Imports point down: a part of g4eval imports only from the parts below it."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent / "g4eval"

# style.md's order, top first; parts of one line may import each other.
ORDER = [
    {"__main__"},
    {"cli"},
    {"driving"},
    {"teacher_forcing"},
    {"importing", "regrading"},
    {"session"},
    {"preflight", "doctor"},
    {"planning"},
    {"report", "gating"},
    {"pipeline"},
    {"asking"},
    {"rendering"},
    {"plan"},
    {"stats"},
    {"store"},
    {"graders"},
    {"sandbox", "engines", "withholding"},
    {"tasking"},
    {"responses"},
    {"fingerprint", "profile", "profiles", "jsonlines", "bounded_jinja"},
    {"records", "registry", "bundled", "concurrency"},
    {"config"},
    {"output"},
    {"bounded_yaml"},
    {"errors", "interrupts"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_imports_point_down() -> None:
    upward = []
    for path in sorted(ROOT.rglob("*.py")):
        module = "g4eval." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        part = part_of(module)
        if part == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("g4eval."):
                other = part_of(node.module or "")
                if other != part and RANK[other] <= RANK[part]:
                    upward.append(f"{module} imports {node.module}")
    assert not upward


def test_help_loads_no_heavy_module() -> None:
    check = (
        "import sys; sys.argv = ['g4eval', '--help']\n"
        "from g4eval.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit as leave: assert leave.code == 0\n"
        "heavy = {'torch', 'vllm', 'docker', 'datasets', 'pandas', 'scipy', 'lm_eval', 'numpy',\n"
        "         'pydantic', 'pyarrow', 'sympy', 'httpx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
