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
STATED_WITHIN = 4000  # characters of the end

# openai/simple-evals, common.py: ANSWER_PATTERN_MULTICHOICE; its first match counts.
_SIMPLE_EVALS = re.compile(r"answer[ \t]*:[ \t]*\$?([A-D])\$?", re.IGNORECASE)
# What may stand between "Answer:" and its letter: emphasis, math signs, a box, a word.
_MARKUP = (
    r"(?:[ \t*_`$\"'({\[]|\\(?:boxed|fbox|text|textbf|mathrm|mathbf)\b|\\[(\[]"
    r"|(?i:\b(?:option|choice)\b))"
)
_LETTER = (
    r"(?<![A-Za-z])([A-D](?![A-Za-z0-9]|['\u2019][a-z]|\s+(?:and|or|to)\s+[A-D]\b|/[A-D]\b)"
    r"|[a-d](?=[)\].*_`$} \t]{0,16}(?:\n|\Z)))"  # a lower-case one only at the line's end
)
_ANSWER_COLON = re.compile(rf"(?i:answer)\b[*_` \t]{{0,8}}:{_MARKUP}{{0,16}}{_LETTER}")
_ANSWER_IS = re.compile(
    rf"(?i:\b(?:answer|choice|option)\b(?:\s+is\b)?)(?:(?<=is):?|[*_`]{{0,4}}:)"
    rf"\s{{0,4}}{_MARKUP}{{0,16}}{_LETTER}"
)
_BOXED_LETTER = re.compile(rf"{_MARKUP}{{0,16}}([A-Da-d])[^A-Za-z0-9]*")


def last_choice_letter(text: str) -> str | None:
    """Return the letter A to D of the last "Answer: X", marked up or not.

    Without one, the last box that holds a letter alone, else the last "answer is X", its letter on
    a line of its own or not. A word that only begins with a letter ("Answer: About") and a list
    ("Answer: A/B/C/D", "Answer: A or B") are no choice.
    """
    if (stated := _last_match(_ANSWER_COLON, text)) is not None:
        return stated.upper()
    boxed = last_boxed(text)
    if boxed is not None and (letter := _BOXED_LETTER.fullmatch(boxed)):
        return letter[1].upper()
    said = _last_match(_ANSWER_IS, text)
    return said.upper() if said else None


def first_choice_letter(text: str) -> str | None:
    """Return the letter that openai/simple-evals reads: the first match of its pattern."""
    match = _SIMPLE_EVALS.search(text)
    return match[1].upper() if match else None


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
        last = match[1]
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
