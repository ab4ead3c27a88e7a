"""Import files: JSON lines of completions, read, checked, split into thoughts and graded."""

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from g4eval.config import RunConfig
from g4eval.engines.base import EngineFacts
from g4eval.graders.base import grade_try
from g4eval.graders.choice import ChoiceGrader
from g4eval.graders.integer import IntegerGrader
from g4eval.graders.stated_answer import StatedAnswerGrader
from g4eval.importing import check_lines, recorded_tries
from g4eval.plan import RunPlan
from g4eval.planning import plan_tasks
from g4eval.records import Sample
from tests.fuzz.border import Border, corpus, mutated_bytes, mutated_json

SEEDS = corpus("imports")
ROWS = [json.loads(line) for seed in SEEDS for line in seed.splitlines()]
FACTS = EngineFacts(engine="import", engine_version="0", model="m")
GRADERS = (
    (IntegerGrader(), 33),
    (ChoiceGrader(), "B"),
    (StatedAnswerGrader(), "yes"),
)


@cache
def _plan() -> RunPlan:
    config = RunConfig(tasks=("demo_math",), repeats=1, model="m")
    return RunPlan(tasks=plan_tasks(config, None), seed=0, engine_fingerprint=FACTS.fingerprint)


def read_import(data: bytes, folder: Path) -> None:
    """Let a file of completions in, and read what it says in every way there is."""
    path = folder / ("in.jsonl.gz" if data[:2] == b"\x1f\x8b" else "in.jsonl")
    path.write_bytes(data)
    (task,) = _plan().tasks
    check_lines(path, task)
    for _, _, one_try in recorded_tries(path, _plan(), FACTS):
        for grader, target in GRADERS:
            sample = Sample(sample_id="s", target=target)
            grade_try(grader, replace(one_try, sample=sample))


# The signs that answers are set in, and nothing else.
SIGNS = [*"\\{}[]()<>|$*_^=+-/!,.: \n\t09AaBbDd", "boxed", "answer", "is", "text", "option"]


def _answers() -> st.SearchStrategy[bytes]:
    texts = st.lists(st.sampled_from(SIGNS), max_size=80).map("".join)
    return texts.map(lambda text: json.dumps({"sample_id": "demo_math-1", "text": text}).encode())


def _lines() -> st.SearchStrategy[bytes]:
    lines = st.lists(mutated_json(ROWS), min_size=1, max_size=4).map(b"\n".join)
    zipped = lines.map(gzip.compress)
    return st.one_of(lines, lines, mutated_bytes(SEEDS), zipped, _answers())


BORDERS = [Border(name="imports", inputs=_lines(), read=read_import)]
