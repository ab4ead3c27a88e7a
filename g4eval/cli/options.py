"""Options that several commands have, and how flags become a RunConfig."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from g4eval.config import RunConfig, parse_config, parse_settings, read_yaml
from g4eval.errors import ConfigError
from g4eval.store.manifest import read_manifest

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def data_options(function: F) -> F:
    """Add --data-dir, --tasks-dir and --allow-partial-data."""
    for option in (
        click.option("--data-dir", type=PATH, help="Folder of benchmark data [G4EVAL_DATA_DIR]."),
        click.option("--tasks-dir", type=PATH, help="Folder of further task families."),
        click.option(
            "--allow-partial-data", is_flag=True, default=None, help="Run with rows missing."
        ),
    ):
        function = option(function)
    return function


def runs_dir_option(function: F) -> F:
    """Add --runs-dir."""
    return click.option(
        "--runs-dir", type=PATH, help="Folder of runs [G4EVAL_RUNS_DIR, else ./runs]."
    )(function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def runs_dir_or_default(runs_dir: Path | None) -> Path:
    """Return the folder of runs: the flag, the environment, or ./runs."""
    return runs_dir or Path(os.environ.get("G4EVAL_RUNS_DIR", "runs"))


def data_dir_or_default(data_dir: Path | None) -> Path | None:
    """Return the folder of data: the flag, the environment, or none."""
    found = os.environ.get("G4EVAL_DATA_DIR")
    return data_dir or (Path(found) if found else None)


def config_of(
    flags: Mapping[str, Any],
    *,
    config_file: Path | None = None,
    manifest: Path | None = None,
) -> RunConfig:
    """Put a RunConfig together: a manifest or a file first, flags over it, then the environment.

    Flags that were not given are None, and so don't override.
    """
    values: dict[str, Any] = {}
    if manifest is not None:
        values.update(_config_of_manifest(manifest))
    if config_file is not None:
        values.update(read_yaml(config_file))
    given = {key: value for key, value in flags.items() if value not in (None, (), [])}
    settings = values.get("set", {})
    if not isinstance(settings, Mapping):
        raise ConfigError("set is not a mapping of KEY: VALUE", where=config_file or manifest)
    asked = parse_settings(given.pop("set", ()))
    if "repeats" in values and any(key.endswith(".repeats") for key in asked):
        each = values.pop("repeats")  # of a file, for every task: what is asked of one goes first
        settings = {**{f"{task}.repeats": each for task in values.get("tasks", ())}, **settings}
    settings = {**settings, **asked}
    values.update(given)
    if settings:
        values["set"] = settings
    _refuse_hidden(values, manifest)
    values["runs_dir"] = runs_dir_or_default(values.get("runs_dir"))
    values["data_dir"] = data_dir_or_default(values.get("data_dir"))
    return parse_config(values, where=str(config_file or manifest or "the command line"))


def _refuse_hidden(values: Mapping[str, Any], manifest: Path | None) -> None:
    """Refuse what a manifest names without its value: headers, and passwords of a body."""
    lines = values.get("header", ())
    names = [n for n in lines if ":" not in n] if isinstance(lines, list) else []
    if manifest is not None and names:
        raise ConfigError(
            f"the run sent the header {names[0]!r}, and values aren't stored",
            where=manifest,
            hint=f"give it again: --header '{names[0]}: …'",
        )
    body = values.get("set", {}).get("engine.extra_body")
    if manifest is not None and "***" in json.dumps(body, default=str):
        raise ConfigError(
            "the run sent a password in engine.extra_body, and such values aren't stored",
            where=manifest,
            hint="give it again: --set 'engine.extra_body={…}'",
        )


def server_options(function: F) -> F:
    """Add --base-url and --header."""
    for option in (
        click.option("--base-url", help="Address of an OpenAI-compatible server."),
        click.option(
            "--header",
            multiple=True,
            metavar="'NAME: VALUE'",
            help="Sent to the server; only its name is stored.",
        ),
    ):
        function = option(function)
    return function


def _config_of_manifest(path: Path) -> dict[str, Any]:
    """Return what made a run; raises ConfigError where it was imported, or is no manifest."""
    manifest = read_manifest(path)
    if "config" not in manifest.model_fields_set:
        raise ConfigError("is no manifest of a run: it has no config", where=path)
    if manifest.engine.engine == "import":
        raise ConfigError(
            "the run was imported, so no engine can make it again",
            where=path,
            hint="run its tasks with an engine of your own: g4eval run TASK --model …",
        )
    return dict(manifest.config)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
