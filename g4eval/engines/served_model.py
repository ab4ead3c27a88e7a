"""The default of `--model`: the only model that a server has."""

import os
from collections.abc import Mapping

from g4eval.engines.openai_failures import advice
from g4eval.engines.openai_options import OpenAIOptions
from g4eval.engines.retry import RequestFailedError
from g4eval.engines.server_address import api_key_from
from g4eval.engines.server_connection import ConnectionOptions, ServerConnection
from g4eval.engines.server_facts import list_models
from g4eval.engines.server_json import as_name
from g4eval.errors import ConfigError, EngineError


async def only_served_model(base_url: str, headers: Mapping[str, str]) -> str:
    """Return the name of the only model behind an address.

    Raises EngineError where the server can't be asked, ConfigError where it has none or several.
    """
    defaults = OpenAIOptions()
    options = ConnectionOptions(
        connections=1,
        queue_timeout_seconds=defaults.queue_timeout_seconds,
        idle_timeout_seconds=defaults.idle_timeout_seconds,
        connect_timeout_seconds=defaults.connect_timeout_seconds,
        headers=headers,
    )
    key = api_key_from(os.environ)
    async with ServerConnection(base_url, api_key=key, options=options) as connection:
        try:
            rows = list_models(await connection.get_json("models"))
        except RequestFailedError as error:
            raise EngineError(
                f"no model is named, and the server can't be asked for its own: {error.message}",
                where=connection.address,
                hint=f"{advice(error, None)}; or name it with --model, if it has no list",
            ) from None
    names = sorted({name for row in rows if (name := as_name(row.get("id")))})
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    raise ConfigError(
        f"no model is named, and the server lists {len(names) or 'none'}",
        where="--model",
        hint=f"one of: {shown}" if names else "name the one that it serves",
    )
