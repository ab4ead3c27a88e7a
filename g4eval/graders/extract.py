r"""Find the final answer in a completion's visible text.

All are pure: text in, string or None out, in time linear in the text's length.
"""

import re
from collections.abc import Iterator

_BOX_OR_BRACE = re.compile(r"(?:boxed|fbox)\s*\{|[{}]")
_FRAMEBOX = r"framebox(?:\[[^\[\]]{0,40}\]){0,2}"
_WIDE_BOX_OR_BRACE = re.compile(rf"(?:boxed|fbox|{_FRAMEBOX})\s*\{{|[{{}}]")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox|framebox)[ \t]*"
    r"(?:[(\[$]([^()\[\]{}$\n]{1,80})[)\]$]|(-?[0-9][0-9,.]*))"
)
MAX_MENTION = 60  # characters
_MENTION = re.compile(
    r"\s*(?:\\(?:text|texttt|textit|textbf|mathrm)\s*\{)?[\s<\[(*_$`\"']*"
    r"(?:(?i:(?:(?:your|my|the|final|numerical|integer|correct|an?)\s+)*"
    r"(?:answer|result|integer|number|value|solution)(?:\s+here)?)|[.\u2026?_\s]*|\\[lc]?dots)"
    r"[\s>\])*_$`\"'}]*"
)
# A number that one letter follows at once, as in 2x, is a coefficient and no answer.
_NUMBER = re.compile(
    r"(?:(?<![\w.])-)?[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?(?![0-9]|\.[0-9]|[a-zA-Z](?![a-zA-Z]))"
)
_STATING_WORDS = ("answer", "result", "total", "value")
_STATED = re.compile(r"[a-z]+\b[^\n0-9]{0,40}?(-?[0-9][0-9,]*(?:\.[0-9]+)?)")
MAX_STATEMENTS = 50  # so many stating words are looked at, from the end
STATED_WITHIN = 4000  # characters of the end


def last_fenced_block(text: str) -> str | None:
    """Return the lines between the last two lines that hold three backticks; None without two.

    Where on its line a fence stands, and what else the line says, does not matter; with an odd
    number of fences the text between two blocks is taken. Nothing is stripped.

    Source: `extract_code` of LiveCodeBench's lcb_runner/utils/extraction_utils.py, in own words.
    """
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])


def last_boxed(text: str) -> str | None:
    r"""Return what the last `\boxed{}` or `\fbox{}` that is closed holds; None without one.

    A box inside the box is unwrapped: `\boxed{\boxed{70}}` holds `70`.
    """
    found = _boxes(text, _BOX_OR_BRACE)
    return _without_boxes(text[slice(*found[-1])]) if found else None


def last_answer_box(text: str) -> str | None:
    r"""Return what the last box holds that isn't a mention of the form; None without a box.

    `\framebox{7}`, `\boxed(7)`, `\boxed 7` are boxes too. `\boxed{}`, `\boxed{answer}` and
    `\boxed{...}` repeat what was asked for: one of them is returned where there are no others.
    """
    for content in answer_boxes(text):
        if not (len(content) <= MAX_MENTION and _MENTION.fullmatch(content)):
            return content
    bare = _last_match(_BARE_BOX, text) if "box" in text else None
    return bare.strip() if bare is not None else next(answer_boxes(text), None)


def answer_boxes(text: str) -> Iterator[str]:
    r"""Yield what each `\boxed{}`, `\fbox{}` or `\framebox{}` holds, the last one first."""
    for start, end in reversed(_boxes(text, _WIDE_BOX_OR_BRACE)):
        yield _without_boxes(text[start:end])


def _boxes(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return where each closed box's content begins and ends; of nested ones the outermost."""
    first = text.find("box")  # nothing before it matters
    if first < 0:
        return []
    opened: list[int] = []  # content start of a box, -1 of a plain brace
    found: list[tuple[int, int]] = []
    for match in pattern.finditer(text, max(0, first - 5)):
        if match[0] == "{":
            opened.append(-1)
        elif match[0] != "}":
            opened.append(match.end())
        elif opened and (start := opened.pop()) >= 0:
            while found and found[-1][0] > start:
                found.pop()  # the one that closes last holds all before it
            found.append((start, match.start()))
    return found


def last_number(text: str) -> str | None:
    """Return the last number in the text as written, `1,023` and `65.0` whole; None without one."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match[0]
    return last


def last_stated_number(text: str) -> str | None:
    """Return the number after the last "answer ..." phrase; None without one."""
    lowered = text[-STATED_WITHIN:].lower()
    end = len(lowered)
    for _ in range(MAX_STATEMENTS):
        end = max(lowered.rfind(word, 0, end) for word in _STATING_WORDS)
        if end < 0:
            return None
        if match := _STATED.match(lowered, end):
            return match[1]
    return None


def _last_match(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for match in pattern.finditer(text):
        last = match[match.lastindex or 0]
    return last


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
