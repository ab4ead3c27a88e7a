"""What must never be shown: keys, passwords and header values, in every form they may come back.

Covered: the value itself; percent-encoded, as JSON and HTML escape it, as Python shows bytes and
text, in base64 (of it alone, and inside something longer at any of the three places) and in hex;
in messages also the beginning of one where what was quoted is cut. Not covered: a server that
translates it, cuts it into pieces or adds characters between. In the texts a model wrote only
values of SHORTEST_IN_TEXTS characters or more are looked for: a shorter one (`4`, `true`) would
take answers away.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
SHORTEST_IN_TEXTS = 6
_SHORTEST_ANYWHERE = 3  # shorter ones are hidden where they stand alone
_SHORTEST_ENCODED = 8  # of an encoded form
_SHORTEST_BEGINNING = 4  # of a secret that was cut
_AROUND_CUT = ".'\")"  # what follows a quote that was cut
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|^pwd$|secret|credential|cookie|authori[sz]ation|bearer|signature|"
    r"(^|[_-])(auth|key|token|sig|jwt)$|api_?key|access_?key|private_?key",
    re.IGNORECASE,
)


class Secrets:
    """Values to hide, in all their forms.

    Args:
        values: the secrets themselves.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._values = {value for value in values if value}
        self._anywhere, self._alone, self._in_texts = _tables(self._values)
        self._percent = {value: _any_percent_form(value) for value in sorted(self._values)}

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} hidden)"

    def hide(self, text: str) -> str:
        """Return a message without any of them."""
        for form in self._anywhere:
            if form in text:
                text = text.replace(form, HIDDEN)
        for pattern in self._alone:
            text = pattern.sub(HIDDEN, text)
        return self._without_cut_end(self._without_percent_forms(text, _SHORTEST_ANYWHERE))

    def hide_in_text(self, text: str) -> str:
        """Return what a model wrote without those that are long enough to be meant."""
        for form in self._in_texts:
            if form in text:
                text = text.replace(form, HIDDEN)
        return self._without_percent_forms(text, SHORTEST_IN_TEXTS)

    def _without_cut_end(self, text: str) -> str:
        """Return a message without the beginning of a secret at its end: quotes are cut there."""
        if "%" in text:
            for value in self._values:
                text = _without_percent_beginning(text, value)
        end = len(text.rstrip(_AROUND_CUT))
        for form in self._anywhere:
            if form[:_SHORTEST_BEGINNING] not in text:
                continue
            for length in range(min(len(form), end), _SHORTEST_BEGINNING - 1, -1):
                if text.startswith(form[:length], end - length):
                    return text[: end - length] + HIDDEN + text[end:]
        return text

    def _without_percent_forms(self, text: str, shortest: int) -> str:
        if "%" in text:
            for value, pattern in self._percent.items():
                if len(value) >= shortest:
                    text = pattern.sub(HIDDEN, text)
        return text


def is_secret_name(name: object) -> bool:
    """Whether a field of this name holds a key or a password, as far as its name tells."""
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None


def without_secrets(value: Any) -> Any:
    """Return a JSON value with every field hidden whose name says that it is a secret."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret_name(name) and inner else without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value]
    return value


def secrets_in(value: Any) -> set[str]:
    """Return the texts that `without_secrets` hides."""
    if isinstance(value, Mapping):
        found: set[str] = set()
        for name, inner in value.items():
            found |= _texts_in(inner) if is_secret_name(name) else secrets_in(inner)
        return found
    if isinstance(value, (list, tuple)):
        return {text for inner in value for text in secrets_in(inner)}
    return set()


def _texts_in(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {text for inner in value.values() for text in _texts_in(inner)}
    if isinstance(value, (list, tuple)):
        return {text for inner in value for text in _texts_in(inner)}
    return set() if value is None or isinstance(value, bool) else {str(value)}


def _tables(values: set[str]) -> tuple[list[str], list[re.Pattern[str]], list[str]]:
    """Return the forms to hide anywhere, alone, and in a model's texts; the longest first."""
    anywhere: set[str] = set()
    alone: set[str] = set()
    in_texts: set[str] = set()
    for value in values:
        plain, encoded = _plain_forms(value), _encoded_forms(value)
        (anywhere if len(value) >= _SHORTEST_ANYWHERE else alone).update(plain)
        anywhere.update(encoded)
        in_texts.update(encoded)
        if len(value) >= SHORTEST_IN_TEXTS:
            in_texts.update(plain)
    patterns = [re.compile(rf"(?<!\w){re.escape(value)}(?!\w)") for value in sorted(alone)]
    return _longest_first(anywhere), patterns, _longest_first(in_texts)


def _longest_first(forms: set[str]) -> list[str]:
    return sorted(forms, key=lambda form: (-len(form), form))


def _plain_forms(value: str) -> set[str]:
    """Return the value as itself and as texts escape it."""
    data = value.encode("utf-8", "surrogatepass")
    escaped = {
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(value)[1:-1].replace("/", "\\/"),
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        repr(value)[1:-1],
        repr(data)[2:-1],
        html.escape(value),
        html.escape(value, quote=False),
    }
    return {form for form in {value, value.replace(" ", "+")} | escaped if form}


def _without_percent_beginning(text: str, value: str) -> str:
    """Return a text without the beginning of a value at its end, any of its bytes as %XX."""
    places = _percent_places(value)
    for length in range(len(places) - 1, _SHORTEST_BEGINNING - 1, -1):
        beginning = "".join(places[:length]) + r"(?:%[0-9A-Fa-f]{0,2}){0,4}"  # and half a letter
        found = re.search(rf"{beginning}(?=[{re.escape(_AROUND_CUT)}]*\Z)", text)
        if found is not None:
            return text[: found.start()] + HIDDEN + text[found.end() :]
    return text


def _any_percent_form(value: str) -> re.Pattern[str]:
    """Return what matches a value with any of its bytes as %XX, in either case."""
    return re.compile("".join(_percent_places(value)))


def _percent_places(value: str) -> list[str]:
    places = []
    for character in value:
        data = character.encode("utf-8", "surrogatepass")
        percent = "".join(f"%(?i:{byte:02X})" for byte in data)
        plus = r"|\+" if character == " " else ""
        places.append(f"(?:{re.escape(character)}|{percent}{plus})")
    return places


def _encoded_forms(value: str) -> set[str]:
    """Return the value in base64 and hex, also where it is part of something longer."""
    data = value.encode("utf-8", "surrogatepass")
    forms = {data.hex(), data.hex().upper()}
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data).rstrip(b"=").decode()
        start = (0, 2, 3)[before]  # what other bytes before it change
        end = len(whole) - (1 if (before + len(data)) % 3 else 0)  # what bytes after it change
        core = whole[start:end]
        forms |= {core, core.replace("+", "-").replace("/", "_"), quote(core, safe="")}
    return {form for form in forms if len(form) >= _SHORTEST_ENCODED}
