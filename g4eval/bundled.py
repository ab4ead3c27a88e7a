"""Find tasks/, sandboxes/ and reports/: inside an installed wheel, or beside the package."""

from pathlib import Path

from g4eval.errors import NotReadyError

_PACKAGE = Path(__file__).resolve().parent


def bundled_dir(name: str) -> Path:
    """Return the folder of content called `name` ("tasks", "reports/published").

    The wheel carries it in `g4eval/_bundled/`; a checkout has it beside the package.
    """
    for folder in (_PACKAGE / "_bundled" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise NotReadyError(
        f"the folder {name!r} that belongs to g4eval is missing",
        where=_PACKAGE,
        hint="install g4eval again",
    )
