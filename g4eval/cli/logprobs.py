"""`g4eval logprobs`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
from g4eval.cli.options import PATH
from g4eval.config import RunConfig, parse_config, parse_settings
from g4eval.engines.base import Engine, ScoringEngine
from g4eval.errors import UsageError
from g4eval.jsonlines import read_json_lines, write_json_lines
from g4eval.planning import find_profile
from g4eval.session import make_engine


@dataclass(frozen=True, slots=True)
class _Sequence:
    name: Any  # the line's id, any JSON value, given back as it is
    token_ids: list[int]


@click.command(name="logprobs")
@click.argument("file", type=PATH)
@click.option("--model", help="Hub id or path.")
@click.option("--engine", default="gemma", show_default=True, help="An engine that can score.")
@click.option("--profile", help="What is known of the model; found by its name unless given.")
@click.option("--base-url", help="Address of an OpenAI-compatible server.")
@click.option("--set", "set_", multiple=True, metavar="engine.KEY=VALUE", help="Engine options.")
def command(file: Path, set_: tuple[str, ...], **flags: Any) -> None:
    """Score given tokens: {"id", "token_ids"} lines in FILE, {"id", "logprobs"} lines out.

    The numbers are natural logarithms of p(token | tokens before it), one for each token but the
    first. No tokenizer is needed. Every line is checked before the model is loaded.
    """
    values = {key: value for key, value in flags.items() if value is not None}
    config = parse_config(values | {"set": parse_settings(set_)}, where="the command line")
    sequences = list(_read(file))
    engine = make_engine(config, find_profile(config))
    interrupts.run(_score(engine, config, sequences))


async def _score(engine: Engine, config: RunConfig, sequences: list[_Sequence]) -> None:
    if not isinstance(engine, ScoringEngine):
        raise UsageError(
            f"engine {config.engine!r} can't score tokens", hint="--engine gemma or vllm"
        )
    async with engine:
        for sequence in sequences:
            scores = await engine.score(sequence.token_ids)
            row = {"id": sequence.name, "logprobs": list(scores.logprobs)}
            write_json_lines(sys.stdout, [row])


def _read(file: Path) -> Iterator[_Sequence]:
    for number, row in read_json_lines(file):
        where = f"{file}:{number}"
        unknown = sorted(row.keys() - {"id", "token_ids"})
        if unknown or "id" not in row:
            what = f"{unknown[0]!r} is not a key" if unknown else "'id' is missing"
            raise UsageError(what, where=where, hint="a line is {id, token_ids}")
        ids = row.get("token_ids")
        if (
            not isinstance(ids, list)
            or len(ids) < 2
            or not all(type(i) is int and i >= 0 for i in ids)
        ):
            raise UsageError(
                "'token_ids' is not a list of two or more whole numbers from 0 on", where=where
            )
        yield _Sequence(row["id"], ids)
