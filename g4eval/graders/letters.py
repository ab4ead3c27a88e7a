r"""Find the option letter, A to D, that a completion's visible answer names.

Two readings, both pure and linear in the text's length: `last_choice_letter` as a careful reader
would, `first_choice_letter` as openai/simple-evals does. docs/tasks/reading.md decides each form.
"""

import re
import unicodedata

from g4eval.graders.extract import answer_boxes
from g4eval.graders.latex import plain_characters, shown

# openai/simple-evals, common.py: ANSWER_PATTERN_MULTICHOICE; its first match counts.
_SIMPLE_EVALS = re.compile(r"answer[ \t]*:[ \t]*\$?([A-D])\$?", re.IGNORECASE)

# What may stand between a phrase and its letter: emphasis, math signs, a box, brackets, a word.
_COMMAND = (
    r"\\(?:boxed|fbox|text[a-z]*|math[a-z]*|boldsymbol|bm|bf|rm|sf|tt|[lL]arge|LARGE|[hH]uge"
    r"|color\s*\{[a-z]{1,20}\}|textcolor\s*\{[a-z]{1,20}\})(?![a-zA-Z])"
)
_MARKUP = (
    rf"(?:[ \t*_`$\"'({{\[<\u201c\u2018\u00ab]|{_COMMAND}|\\[(\[]"
    r"|\b(?:option|choice|letter)\b:?|\$?\bLETTER\b\$?[ \t]*(?:=|:|\bis\b)?)"
)
# A letter that begins a word, a compound, a formula or a list of letters is no choice.
_NOT_A_CHOICE = (
    r"(?![^\W_]|['\u2019][a-z]|[-\u2010\u2011\u2013\u2192][A-Za-z0-9(\[]"
    r"|_[A-Za-z0-9{]|[=+^&\u2192]|\(=|[*_`$)\]}]{0,4}\s*(?:,\s*)?\b(?:and|or|to)\s+[*_`$(]{0,4}[A-D]\b"
    r"|[*_`$)\]}]{0,4}\s*(?:[,/&]\s*[*_`$(]{0,4}[A-D]\b)(?!\s+(?!and\b|or\b)[a-z]))"
)
# "A careful look" has an article; "A because ...", "A is ..." a choice.
_ARTICLE = (
    r"(?!(?<=A)[ \t]+(?!(?:because|since|as|is|was|due|given|for|by|with|which|where|while|but"
    r"|not|only|would|must|follows|corresponds|matches|satisfies|gives|seems|fits)\b)[a-z])"
)
_UPPER = rf"(?-i:[A-D]){_NOT_A_CHOICE}{_ARTICLE}"
_LOWER = r"(?-i:[a-d])(?=\)|[)\].*_`$} \t]{0,16}(?:\n|\Z))"  # at the line's end, or as "b)"
_LETTER = rf"(?<![A-Za-z])({_UPPER}|{_LOWER})"
_ALONE = r"(?=[)\].:*_`$}> \t]{1,16}|\n|\Z)"  # a letter that begins a line and is no sentence's

# What follows the word "answer": a colon or its likes; or it is an element of that name.
_ANSWER_COLON = re.compile(
    rf"answer\b[*_`\" \t]{{0,8}}(?:[:=\u2192]|[-\u2013\u2014]{{1,3}}>?(?=\s)){_MARKUP}{{0,16}}"
    rf"(?:{_LETTER}|\s{{1,6}}(?:[-\u2022>]\s{{1,3}})?{_MARKUP}{{0,16}}{_LETTER}{_ALONE})"
    rf"|(?:(?<=<)|(?<=<final)|(?<=<final[ _]))answer>\s{{0,6}}{_MARKUP}{{0,16}}{_LETTER}",
    re.IGNORECASE,
)
_RIGHT = r"(?:the\s+)?(?:most\s+|only\s+|single\s+|best\s+)?(?:correct|right|true|best|answer)\b"
_SAID = re.compile(
    # An answer that is said, as in: the answer is B; the correct choice: B.
    rf"\b(?:answer|choice|option)\b(?:\s+(?:is|should\s+be|must\s+be|would\s+be)\b:?|[*_`]{{0,4}}:)"
    rf"\s{{0,4}}{_MARKUP}{{0,16}}{_LETTER}"
    # A heading that says Answer, with its letter below.
    rf"|^[#>*_ \t]{{0,8}}(?:(?:the|my|final|correct|best)\s+){{0,3}}answer[*_: \t]{{0,8}}\n"
    rf"\s{{0,6}}{_MARKUP}{{0,16}}{_LETTER}{_ALONE}"
    # As in: option B is correct; therefore, B is the best answer.
    rf"|(?:(?<!if )(?<!whether )\b(?:option|choice|answer)\s+|^|[.:;,!?]\s{{1,4}}"
    rf"|\b(?:so|thus|hence|therefore|that|only|and|but)\s+)[*_`(\[]{{0,4}}"
    rf"{_LETTER}[*_`)\]]{{0,4}}\s+(?:is|must\s+be|should\s+be|would\s+be)\s+{_RIGHT}"
    # As in: which is option B; i.e. option B; so the answer B.
    rf"|\b(?:which\s+is|that\s+is|i\.e\.,?|namely|so|thus|hence|therefore|to|with|matches)"
    rf"[\s,]{{1,3}}(?:it\s+is\s+|is\s+)?(?:the\s+)?(?:option|choice|answer)\s+{_MARKUP}{{0,16}}{_LETTER}"
    # A line that says Answer B or Answer choice (B) alone; option B in brackets anywhere.
    rf"|^[#>*_ \t]{{0,8}}(?:(?:my|final|correct|best)\s+){{0,2}}(?:answer|choice|option)"
    rf"(?:\s+(?:choice|option|letter))?\s+[*_`(\[]{{0,4}}{_LETTER}[*_`)\].]{{0,4}}[ \t]*$"
    rf"|\((?:i\.e\.,?\s+)?(?:option|choice)\s+{_LETTER}\)"
    # As in: I choose B.
    rf"|\bI(?:'ll|\s+will|\s+would)?\s+(?:choose|select|pick|go\s+with)\s+{_MARKUP}{{0,16}}{_LETTER}",
    re.IGNORECASE | re.MULTILINE,
)
_IN_BOX = re.compile(
    rf"[\s*_`(\[{{]*(?:(?:option|choice|letter|answer)\b[\s:]*)?[\s*_`(\[{{]*(?:"
    rf"([A-Da-d])[^A-Za-z0-9=+^_-]*|((?-i:[A-D])){_NOT_A_CHOICE}\s*[)\]:.,*_}}][\s\S]{{0,400}})",
    re.IGNORECASE,
)
_TYPE_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|code|br|p)(?:\s[^<>]{0,80})?/?>")
_LONE_LINE = re.compile(rf"[#>]*{_MARKUP}{{0,16}}([A-D])[)\].:*_`$}}>\"' \t]{{0,16}}")
_LONE_OPTION = re.compile(rf"{_MARKUP}{{0,16}}([A-D])[)\].:*_`]{{1,6}}\s[^\n]*")


def last_choice_letter(text: str) -> str | None:
    """Return the letter A to D of the last "Answer: X", marked up or not.

    Without one, the last box that names an option; else the last "answer is X", "option X is
    correct", or heading "Answer" with the letter below it; else a letter that is all of the text
    or of its last line. A word that only begins with a letter ("Answer: About", "D-glucose") and a
    list ("Answer: A/B/C/D", "Answer: A or B") are no choice.
    """
    if not text.isascii():
        text = plain_characters(unicodedata.normalize("NFKC", text))
    if "<" in text:
        text = _TYPE_TAG.sub("", text)
    found = (
        _last_after_answer(text)
        or _last_boxed_letter(text)
        or _last(_SAID, text)
        or _lone_letter(text)
    )
    return found.upper() if found else None


def first_choice_letter(text: str) -> str | None:
    """Return the letter that openai/simple-evals reads: the first match of its pattern."""
    match = _SIMPLE_EVALS.search(text)
    return match[1].upper() if match else None


def _last_after_answer(text: str) -> str | None:
    """Match at each "answer" from the end on: the first that fits is the last, and soon found."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose small form is two
        return _last(_ANSWER_COLON, text)
    at = lowered.rfind("answer")
    while at >= 0:
        if match := _ANSWER_COLON.match(text, at):
            return match[match.lastindex or 0]
        at = lowered.rfind("answer", 0, at)
    return None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for match in pattern.finditer(text):
        last = match[match.lastindex or 0]
    return last


def _last_boxed_letter(text: str) -> str | None:
    for content in answer_boxes(text):
        if len(content) <= 400 and (match := _IN_BOX.fullmatch(shown(content).strip())):
            return match[1] or match[2]
    return None


def _lone_letter(text: str) -> str | None:
    """Return the letter where it is the whole answer, or its last line after lines that aren't."""
    text = text.strip()
    if match := _LONE_OPTION.fullmatch(text):
        return match[1]
    head, _, last = text.rpartition("\n")
    if not (match := _LONE_LINE.fullmatch(last.strip())):
        return None
    before = head.rstrip().rpartition("\n")[2].strip()
    return None if _LONE_LINE.fullmatch(before) else match[1]
