r"""What a piece of LaTeX, Markdown or HTML shows, its typesetting taken away.

`\color{red}{117}`, `{\rm 117}`, `\large 117`, `\text{117}` and `**117**` all show 117. Graders call
`shown` on short texts: the content of a box. Pure, and quick because callers cap the length.
"""

import re

MAX_DEPTH = 40  # wrappers in wrappers

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff\ufe0f]")
# Full-width forms stand for ASCII; a minus and operators have signs of their own.
_CHARACTERS = {
    **{0xFF01 + n: chr(0x21 + n) for n in range(94)},
    **{0x1D7CE + n: str(n % 10) for n in range(50)},  # mathematical digits, bold and others
    ord("\u2212"): "-", ord("\ufe63"): "-",
    ord("\u00d7"): r"\times ", ord("\u00f7"): r"\div ",
    ord("\u22c5"): r"\cdot ", ord("\u00b7"): r"\cdot ", ord("\u2219"): r"\cdot ",
    ord("\u00b2"): "^2", ord("\u00b3"): "^3",
    ord("\u201c"): " ", ord("\u201d"): " ", ord("\u2018"): " ", ord("\u2019"): " ",
    ord("\u3000"): " ",
    **dict.fromkeys(map(ord, "\u2713\u2714\u2705\u220e"), " "),  # ticks, the end of a proof
}  # fmt: skip

# Commands that show nothing themselves, each with the arguments that go with it.
_SWITCH = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|(?:display|text|script|scriptscript)style"
    r"|q?quad|enspace|enskip|(?:thin|med|thick|negthin)space|hfill?|strut|mathstrut"
    r"|tiny|scriptsize|footnotesize|small|normalsize|[lL]arge|LARGE|[hH]uge|HUGE"
    r"|bf|rm|it|sf|tt|sc|sl|em|cal|mit|bold|boldmath|unboldmath|normalfont|(?:bf|md)series"
    r"|(?:it|up|sl|sc)shape|(?:rm|sf|tt)family|centering|protect|relax|null|(?:no)?limits"
    r"|nonumber|notag|blacksquare|square|qed|qedhere|checkmark|Box|allowbreak|nobreak)(?![a-zA-Z])"
)
_WITH_ARGUMENT = re.compile(
    r"\\(?:[hv]?phantom|[hv]space\*?|label|tag\*?|color|textcolor|colorbox"
    r"|fcolorbox\s*\{[^{}]*\}|scalebox|raisebox|class|cssId|style|href|begin|end|footnote)"
    r"\s*(?:\[[^\[\]]*\]\s*)?\{[^{}]*\}|\\bbox\s*(?:\[[^\[\]]*\])?|(?<=array\})\{[clr|]*\}"
)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]{0,9}(?:\s[^<>]*)?/?>")
# Commands that show their argument; a unit's power goes with the unit.
_SHOWN_COMMAND = (
    r"\\(?:text[a-z]*|math[a-z]*|boldsymbol|bold|bm|pmb|[mhf]?box|framebox|boxed|emph|underline"
    r"|uline|underbar|operatorname\*?|ensuremath|tfrac(?=\s*\{[^{}]*\}\s*(?!\{)))\s*"
)
_POWER = r"\s*\^\s*(?:\{\s*[-+]?[0-9]\s*\}|[-+]?[0-9])"
_UNIT = re.compile(
    rf"{_SHOWN_COMMAND}\{{\s*(?:[a-zA-Z./\s]*[a-zA-Z]\s*\}}{_POWER}|[mgshNJKLVWACF]\s*\}})"
)
_SHOWN = re.compile(rf"{_SHOWN_COMMAND}\{{([^{{}}]*)\}}")
_BARE = re.compile(r"\\(?:text|math)[a-z]+(?![a-zA-Z])")  # `\mathbf 5`, its braces left out
_SPACING = re.compile(
    r"\\\\|\\[,;:!> ]|\\(?=\s|\Z)|[$~&#]|\\[()\[\]#]|&nbsp;|\*\*|[\u00a0\u2009\u202f`\"\s]"
)


def shown(text: str) -> str:
    r"""Return what `text` shows: `\text{73}` becomes ` 73 `, `\text{ cm}^2` a word of its own."""
    if not text.isascii():
        text = plain_characters(text).translate(_CHARACTERS)
    if "<" in text:
        text = _TAG.sub(" ", text)
    for _ in range(MAX_DEPTH):
        before = text
        text = _WITH_ARGUMENT.sub(" ", text)
        text = _SHOWN.sub(r" \1 ", _UNIT.sub(" units ", text))
        if text == before:
            break
    return _SPACING.sub(" ", _BARE.sub(" ", _SWITCH.sub(" ", text)))


def plain_characters(text: str) -> str:
    """Drop the characters that nobody sees: zero-width ones, soft hyphens, direction marks."""
    return _INVISIBLE.sub("", text)
