r"""Find the final answer in a completion's visible text.

All are pure: text in, string or None out, in time linear in the text's length.
"""

import re

_BOX_OR_BRACE = re.compile(r"(?:boxed|fbox)\s*\{|[{}]")
# A number that one letter follows at once, as in 2x, is a coefficient and no answer.
_NUMBER = re.compile(
    r"(?:(?<![\w.])-)?[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?(?![0-9]|\.[0-9]|[a-zA-Z](?![a-zA-Z]))"
)
_STATING_WORDS = ("answer", "result", "total", "value")
_STATED = re.compile(r"[a-z]+\b[^\n0-9]{0,40}?(-?[0-9][0-9,]*(?:\.[0-9]+)?)")
MAX_STATEMENTS = 50  # so many stating words are looked at, from the end


def last_boxed(text: str) -> str | None:
    r"""Return what the last `\boxed{}` or `\fbox{}` that is closed holds; None without one.

    A box inside the box is unwrapped: `\boxed{\boxed{70}}` holds `70`.
    """
    first = text.find("box")  # nothing before it matters
    if first < 0:
        return None
    opened: list[int] = []  # content start of a box, -1 of a plain brace
    found: tuple[int, int] | None = None
    for match in _BOX_OR_BRACE.finditer(text, max(0, first - 1)):
        if match[0] == "{":
            opened.append(-1)
        elif match[0] != "}":
            opened.append(match.end())
        elif opened and (start := opened.pop()) >= 0:
            found = (start, match.start())  # the one that closes last holds all before it
    if found is None:
        return None
    return _without_boxes(text[found[0] : found[1]])


def last_number(text: str) -> str | None:
    """Return the last number in the text as written, `1,023` and `65.0` whole; None without one."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match[0]
    return last


def last_stated_number(text: str) -> str | None:
    """Return the number after the last "answer ..." phrase; None without one."""
    lowered = text.lower()
    end = len(lowered)
    for _ in range(MAX_STATEMENTS):
        end = max(lowered.rfind(word, 0, end) for word in _STATING_WORDS)
        if end < 0:
            return None
        if match := _STATED.match(lowered, end):
            return match[1]
    return None


def _without_boxes(content: str) -> str:
    pieces: list[str] = []
    kept: list[bool] = []  # a stack: is the brace that closes next part of the content
    start = 0
    for match in _BOX_OR_BRACE.finditer(content):
        is_box = match[0] not in "{}"
        if match[0] == "}":
            keep = kept.pop() if kept else True
        else:
            keep = not is_box
            kept.append(keep)
        end = match.start()
        if is_box and content.endswith("\\", start, end):
            end -= 1
        pieces.append(content[start:end])
        if keep:
            pieces.append(match[0])
        start = match.end()
    pieces.append(content[start:])
    return "".join(pieces).strip()
