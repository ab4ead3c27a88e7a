r"""Read a number off what a model wrote, LaTeX or plain: integers, decimals, fractions, sums.

Our own small parser, since nothing a model wrote may reach `eval` or sympy's parsers in the main
process. Exact (`Fraction`), with caps on length and size, so that it always ends at once. What it
can't read whole is None: a caller must never take a part of an answer for the answer.
"""

import math
import re
from fractions import Fraction

from g4eval.graders.latex import shown

MAX_CHARACTERS = 400
MAX_DEPTH = 40
MAX_EXPONENT = 64
MAX_POWER_BITS = 4096
MAX_FACTORIAL = 100

_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\(?:degree|circ)(?![a-zA-Z])|[°%£€¥]|\\%|\\\$")
_ORDINAL = re.compile(r"\^\s*\{?\s*(?:st|nd|rd|th)\b\s*\}?")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,|\{,\}|\\,|,\\!)(?=[0-9]{3}(?![0-9]))")
_WORDS = re.compile(
    r"(?<![\\a-zA-Z])[a-zA-Z]{2,}(?:-[a-zA-Z]+)*(?![a-zA-Z{(_])"
    r"(?:\s*\^\s*(?:\{\s*[0-9]\s*\}|[0-9])|(?!\s*\^))[.:]?"
)
# Words that make another number of the one they stand at, or say that it isn't the answer.
_NOT_UNITS = re.compile(
    r"(?i)\b(?:pi|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|root|gcd|lcm|min|max|floor|ceil|binom|mod"
    r"|choose|not|no|than|least|most|between|except|above|below|over|under|about|around|roughly"
    r"|approximately|nearly|almost|times|plus|minus|half|twice|thousand|million|billion|dozen"
    r"|hundred|infinity|inf)\b|(?<![a-zA-Z])[<>]|!="
)
_UNEQUAL = re.compile(r"[<>!/]\s*=|\\not(?![a-zA-Z])")
_SIDES = re.compile(
    r":?=|\\(?:equiv|approx|cong|simeq|doteq|triangleq|to|implies|iff|mapsto|therefore"
    r"|(?:long|Long)?(?:left)?[rR]ightarrow)(?![a-zA-Z])|[≡≈≅→⇒∴]"
)
_MODULUS = re.compile(r"[,;]?\s*\(?\s*\\?[pb]?mod(?:ulo)?\s*\{?\s*([0-9]{1,9})\s*\}?\s*\)?\s*\Z")
_BASE = re.compile(
    r"(?:\{\s*([0-9]+)\s*\}|\(\s*([0-9]+)\s*\)|([0-9]+))\s*"
    r"_\s*(?:\{\s*([0-9]{1,2}|ten)\s*\}|(10|[2-9])(?![0-9]))"
)
_NO_WORDS_LEFT = re.compile(r"\([\s;,.]*\)")
_ENDS = " .,;:*_'"
_TOKEN = re.compile(
    r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+|\\(?:d|t|c|s|nice)?frac(?![a-zA-Z])|\\[dt]?binom(?![a-zA-Z])"
    r"|\\(?:over|choose|sqrt|cdot|times|ast|div|[lr](?:floor|ceil))(?![a-zA-Z])|\\[{}]"
    r"|[-+*/^(){}!\[\]]"
)
_ALIKE = {"\\{": "(", "\\}": ")", "[": "(", "]": ")"}  # one number in a set or a list is a number


def parse_value(text: str) -> Fraction | None:
    r"""Return the one number that `text` stands for; None where it stands for none, or for several.

    Understood: signs, decimals, thousands commas, fractions, binomials, factorials, exact roots,
    floors, `+ - * / ^` with parentheses, the last side of an equation that is a number, residues
    (`12161 \equiv 161 \pmod{1000}` is 161), a base written below (`156_{10}`), units and words
    around the number, and whatever changes only how it looks. `2x` or `3, 4` stand for no number.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if text.isascii() and text.isdigit():
        return Fraction(int(text))
    # The comma of thousands goes first: what makes room in `10\,000` is no border of two numbers.
    plain = shown(_DEGREES.sub(" ", _THOUSANDS.sub("", text)))
    if _UNEQUAL.search(plain):
        return None
    plain, modulus = _without_modulus(_THOUSANDS.sub("", _ORDINAL.sub(" ", plain)))
    for side in reversed(_SIDES.split(plain)):
        value = _value_of_side(side)
        if value is not None:
            return value % modulus if modulus else value
    return None


def _without_modulus(text: str) -> tuple[str, int]:
    """Take "(mod 1000)" off the end; 0 where there is none."""
    match = _MODULUS.search(text)
    return (text, 0) if match is None else (text[: match.start()], int(match[1]))


def _value_of_side(side: str) -> Fraction | None:
    side, _ = _without_modulus(side)
    side = _BASE.sub(_in_base_ten, side)
    value = _value_of(side)
    if value is not None or _NOT_UNITS.search(side):
        return value
    return _value_of(_NO_WORDS_LEFT.sub(" ; ", _WORDS.sub(" ; ", side)))  # words keep numbers apart


def _value_of(text: str) -> Fraction | None:
    tokens = _tokens(text)
    return None if tokens is None else _Parser(tokens).parse()


def _in_base_ten(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    base = 10 if match[4] == "ten" else int(match[4] or match[5])
    try:
        return str(int(digits, base)) if 2 <= base <= 10 else match[0]
    except ValueError:  # a digit that the base hasn't
        return match[0]


def _tokens(text: str) -> list[str] | None:
    """Return the tokens; None where something else stands between them or numbers touch."""
    text = text.strip(_ENDS)
    tokens: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        if text[position : match.start()].strip():
            return None
        if tokens and tokens[-1][-1].isdigit() and match[0][0].isdigit():
            return None  # "73 74" is two numbers
        tokens.append(_ALIKE.get(match[0], match[0]))
        position = match.end()
    if text[position:].strip() or not tokens:
        return None
    return tokens


_AFTER_A_PRODUCT = ("+", "-", ")", "}", "\\over", "\\choose", "\\rfloor", "\\rceil")
_CLOSING = {"(": ")", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


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
        if self._peek() == "\\over":  # TeX's own, over all of its group
            self._take()
            return value / self._sum()
        if self._peek() == "\\choose":
            self._take()
            return _binomial(value, self._sum())
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while (symbol := self._peek()) and symbol not in _AFTER_A_PRODUCT:
            if symbol in ("*", "\\cdot", "\\times", "\\ast"):
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
        base = self._factorial()
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

    def _factorial(self) -> Fraction:
        value = self._atom()
        while self._peek() == "!":
            self._take()
            value = Fraction(math.factorial(_count(value)))
        return value

    def _atom(self) -> Fraction:
        symbol = self._take()
        if closing := _CLOSING.get(symbol):
            value = self._sum()
            self._take(closing)
            if symbol == "\\lfloor":
                return Fraction(math.floor(value))
            return Fraction(math.ceil(value)) if symbol == "\\lceil" else value
        if symbol.endswith("frac"):
            return self._frac_part() / self._frac_part()
        if symbol.endswith("binom"):
            return _binomial(self._frac_part(), self._frac_part())
        if symbol == "\\sqrt":
            return _exact_root(self._frac_part())
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


def _count(value: Fraction) -> int:
    if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise _NotANumberError
    return int(value)


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    """N over k; n is any number where k is 0 or 1, else one of a size that ends at once."""
    if n.denominator != 1 or n < 0 or n.numerator.bit_length() > MAX_EXPONENT:
        raise _NotANumberError
    return Fraction(math.comb(int(n), _count(k)))


def _exact_root(value: Fraction) -> Fraction:
    if value < 0:
        raise _NotANumberError
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise _NotANumberError
    return root


class _NotANumberError(Exception):
    """The text stands for no number."""
