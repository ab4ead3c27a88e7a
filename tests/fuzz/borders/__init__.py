"""The borders: each module here has a list `BORDERS`."""

import importlib
import importlib.util
import pkgutil

from tests.fuzz.border import Border


def all_borders() -> list[Border]:
    """Return the borders whose packages are here, in order of name."""
    found: list[Border] = []
    for module in pkgutil.iter_modules(__path__):
        try:
            found += importlib.import_module(f"{__name__}.{module.name}").BORDERS
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "gguf", "safetensors", "tokenizers"):  # extra gemma
                raise
    here = [b for b in found if b.needs is None or importlib.util.find_spec(b.needs) is not None]
    return sorted(here, key=lambda border: border.name)
