"""An invented family whose tries have three steps, each asking about the answer before it."""

import json
from pathlib import Path

TASK = """id: talk
version: 1
title: Invented talk
licence: invented
invented: true
data:
  rows: {rows}
  sources:
    - kind: package
      path: rows.jsonl
      columns: {{sample_id: id, target: answer, problem: problem}}
prompts:
  default: {{template: prompt.jinja, source: invented}}
dialogue: plugin:{dialogue}
grader: plugin:TalkGrader
metrics: [accuracy, pass@k]
repeats: {repeats}
max_new_tokens: 100
"""

PLUGIN = '''import asyncio
import hashlib

from g4eval.records import Chat, Grade, Kind, Message, Outcome, Text


class ThreeSteps:
    def __init__(self, first_prompt):
        self.first_prompt = first_prompt

    async def run(self, sample, repeat, ask):
        turns = self.first_prompt(sample, repeat)
        for step in range(3):
            said = await ask(step, Chat(turns))
            digest = hashlib.sha256(said.text.encode()).hexdigest()
            more = await ask.use(step, "digest", said.text, lambda: self.work(digest))
            turns = (*turns, Message(role="assistant", content=said.text),
                     Message(role="user", content=f"And {more}?"))

    async def work(self, digest):
        return digest


class Choices:
    """Scores each option, side by side."""

    def __init__(self, first_prompt):
        self.first_prompt = first_prompt

    async def run(self, sample, repeat, ask):
        prompt = Text(self.first_prompt(sample, repeat)[0].content)
        options = [Text(f" {letter}") for letter in "ABCD"]
        await asyncio.gather(
            *(ask(step, prompt, kind=Kind.SCORE, continuation=option)
              for step, option in enumerate(options))
        )


class Hasty:
    """Fails with the first of its four questions that fails, while the others are under way."""

    def __init__(self, first_prompt):
        self.first_prompt = first_prompt

    async def run(self, sample, repeat, ask):
        turns = self.first_prompt(sample, repeat)
        await asyncio.gather(*(ask(step, Chat(turns)) for step in range(4)))


class Fickle(ThreeSteps):
    """Asks something else each time it is made."""

    async def run(self, sample, repeat, ask):
        await ask(0, Chat((Message(role="user", content=str(id(ask))),)))
        await ask(1, Chat(self.first_prompt(sample, repeat)))


class TalkGrader:
    """Right where the steps belong together; what it found is a hash of all of them."""

    name = "talk"
    version = 1

    def grade(self, one_try):
        steps = [c.step for c in one_try.completions]
        found = hashlib.sha256("".join(c.text for c in one_try.completions).encode()).hexdigest()
        used = [r.arguments for r in one_try.tool_results]
        whole = not used or used == [c.text for c in one_try.completions]
        right = whole and steps == list(range(len(steps))) and int(found, 16) % 3
        return Grade(
            key=one_try.key, grader=self.name, grader_version=self.version,
            outcome=Outcome.CORRECT if right else Outcome.INCORRECT, extraction=found,
        )

    def example(self, sample, repeat, *, right):
        return f"It is {sample.target}."
'''


def write_family(
    root: Path, *, rows: int = 6, repeats: int = 2, dialogue: str = "ThreeSteps"
) -> Path:
    """Write the family below `root`; return the folder for `--tasks-dir`."""
    family = root / "families" / "talk"
    family.mkdir(parents=True, exist_ok=True)
    samples = [{"id": f"s{i}", "problem": f"{i} + 1?", "answer": i + 1} for i in range(rows)]
    (family / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (family / "talk.yaml").write_text(TASK.format(rows=rows, repeats=repeats, dialogue=dialogue))
    (family / "prompt.jinja").write_text("{{ problem }}\n")
    (family / "plugin.py").write_text(PLUGIN)
    return root / "families"
