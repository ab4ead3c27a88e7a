r"""Read a number off what a model wrote, LaTeX or plain: integers, decimals, fractions, sums.

Our own small parser, since nothing a model wrote may reach `eval` or sympy's parsers in the main
process. Exact (`Fraction`), with caps on length and size, so that it always ends at once.
"""

import re
from fractions import Fraction

MAX_CHARACTERS = 400
MAX_DEPTH = 40
MAX_EXPONENT = 64
MAX_POWER_BITS = 4096

_SPACING = re.compile(
    r"\\[,;:!> ]|\\(?:left|right|displaystyle|quad|qquad|bigl?|bigr?|Bigl?|Bigr?)(?![a-zA-Z])|[$~]"
    r"|\\[()\[\]]|&nbsp;|\*\*|[\u00a0\u2009\u202f`\s]"
)
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathbf|mathrm|mathit|mathsf|boldsymbol|bm|mbox|emph|underline"
    r"|operatorname|tfrac(?!\{)|phantom)\s*\{([^{}]*)\}"
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\%|%|\\\$")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,|\{,\}|\\,|,\\!)(?=[0-9]{3}(?![0-9]))")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}(?:-[a-zA-Z]+)*(?![a-zA-Z{(^_])[.:]?")
_MODULUS = re.compile(r"\(?\s*\\?p?mod\s*\{?\s*[0-9]+\s*\}?\s*\)?\s*\Z")
_TOKEN = re.compile(
    r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+|\\(?:d|t|c)?frac|\\cdot|\\times|\\div|[-+*/^(){}]"
)


def parse_value(text: str) -> Fraction | None:
    r"""Return the one number that `text` stands for; None where it stands for none, or for several.

    Understood: signs, decimals, thousands commas, `\frac`, `+ - * / ^` with parentheses, an
    equation's last side, units and words around the number. `2x` or `3, 4` stand for no number.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if text.isascii() and text.isdigit():
        return Fraction(int(text))
    last_side = _MODULUS.sub(" ", _unwrap(text).rpartition("=")[2])
    for candidate in (last_side, _WORDS.sub(" ; ", last_side)):  # what stood apart stays apart
        tokens = _tokens(_SPACING.sub(" ", _THOUSANDS.sub("", candidate)))
        if tokens is not None:
            value = _Parser(tokens).parse()
            if value is not None:
                return value
    return None


def _unwrap(text: str) -> str:
    r"""Drop degree signs and the like; `\text{73}` becomes ` 73 `, `\text{ units}` a blank."""
    text = _DEGREES.sub(" ", text.replace("\u2212", "-"))
    for _ in range(MAX_DEPTH):
        unwrapped = _WRAPPER.sub(r" \1 ", text)
        if unwrapped == text:
            break
        text = unwrapped
    return text


def _tokens(text: str) -> list[str] | None:
    """Return the tokens; None where something else stands between them or numbers touch."""
    text = text.strip(" .,;")
    tokens: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        if text[position : match.start()].strip():
            return None
        if tokens and tokens[-1][-1].isdigit() and match[0][0].isdigit():
            return None  # "73 74" is two numbers
        tokens.append(match[0])
        position = match.end()
    if text[position:].strip() or not tokens:
        return None
    return tokens


class _Parser:
    """Recursive descent over tokens: sum, product, power, atom."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def parse(self) -> Fraction | None:
        try:
            value = self._sum()
        except (_NotANumberError, ZeroDivisionError):
            return None
        return value if self._next == len(self._tokens) else None

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        symbol = self._peek()
        if not symbol or (expected is not None and symbol != expected):
            raise _NotANumberError
        self._next += 1
        return symbol

    def _sum(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NotANumberError
        value = self._product()
        while self._peek() in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        self._depth -= 1
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while (symbol := self._peek()) and symbol not in "+-)}":
            if symbol in ("*", "\\cdot", "\\times"):
                self._take()
                value *= self._signed()
            elif symbol in ("/", "\\div"):
                self._take()
                value /= self._signed()
            else:
                raise _NotANumberError
        return value

    def _signed(self) -> Fraction:
        sign = 1
        while self._peek() in ("+", "-"):
            if self._take() == "-":
                sign = -sign
        return sign * self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        exponent = self._signed() if self._peek() != "{" else self._atom()
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise _NotANumberError
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(int(exponent)) > MAX_POWER_BITS:
            raise _NotANumberError
        return base ** int(exponent)

    def _atom(self) -> Fraction:
        symbol = self._take()
        if symbol in ("(", "{"):
            value = self._sum()
            self._take(")" if symbol == "(" else "}")
            return value
        if symbol.endswith("frac"):
            return self._frac_part() / self._frac_part()
        if symbol[0].isdigit() or symbol[0] == ".":
            return Fraction(symbol.rstrip(".") if symbol != "." else "0")
        raise _NotANumberError

    def _frac_part(self) -> Fraction:
        r"""Read `{12}`, or as in `\frac12` one digit of a number."""
        if self._peek() == "{":
            return self._atom()
        symbol = self._take()
        if not symbol.isdigit():
            raise _NotANumberError
        if len(symbol) > 1:
            self._next -= 1
            self._tokens[self._next] = symbol[1:]
        return Fraction(symbol[0])


class _NotANumberError(Exception):
    """The text stands for no number."""
