"""Signs of a broken model in what it wrote: it ends in a loop, or it leaves the prompt's script.

Read from the texts once and kept in RUN/signals.npz, as flags by completion: a gate file and a
second gate need no text. Completions never change, so a run that grew only adds to them.
"""

import contextlib
import os
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from g4eval.store.reader import RunReader

VERSION = 1  # of the two rules; another one reads every text again
SIGNALS = "signals.npz"
LOOP, SCRIPT = 1, 2  # bits of a flag

# A loop, as what a model writes until its budget ends: one string at least so many times over, and
# so many characters in all. Rules of a table, rows of zeros and closing brackets are shorter.
LOOP_REPEATS = 5
LOOP_CHARACTERS = 400  # about 100 tokens
LONGEST_PERIOD = 1000
_PROBE = 16

# A switch of language: half of some 40 letters in a row. A quoted name or word is shorter.
WINDOW_LETTERS = 40
OTHER_LETTERS = 20
ALWAYS_EXPECTED = frozenset({"LATIN", "GREEK"})  # code and formulas are in any answer
_JOINED = dict.fromkeys(
    ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "BOPOMOFO"), "CJK"
)


def ends_in_loop(text: str) -> bool:
    """Whether the end of a text repeats one string to the last character.

    The string has at most LONGEST_PERIOD characters; the last round may be cut anywhere. A loop
    that counts on ("Step 41: ... Step 42: ...") is none, nor is one that the text leaves again.
    """
    tail = text[-LOOP_REPEATS * LONGEST_PERIOD :]
    if len(tail) < LOOP_CHARACTERS:
        return False
    last = len(tail) - _PROBE
    probe, at = tail[last:], last
    while True:  # every place where the last characters stood before tells a period
        at = tail.rfind(probe, 0, at + _PROBE - 1)
        period = last - at
        if at < 0 or period > LONGEST_PERIOD:
            return False
        looped = max(LOOP_CHARACTERS, LOOP_REPEATS * period)
        if looped <= len(tail) and tail[-looped:-period] == tail[period - looped :]:
            return True


def leaves_script(text: str, expected: frozenset[str]) -> bool:
    """Whether some stretch of a text is mostly in letters of other scripts than the expected.

    Digits, signs and spaces belong to no script. `expected`: see `scripts_of`.
    """
    other = {c for c in set(text) if not c.isascii() and c.isalpha()}
    other = {c for c in other if _script(c) not in expected}
    if sum(map(text.count, other)) < OTHER_LETTERS:
        return False
    is_other = np.array([c in other for c in text if c.isalpha()], np.int64)
    sums = np.concatenate([[0], is_other.cumsum()])
    inside = sums[WINDOW_LETTERS:] - sums[:-WINDOW_LETTERS]
    return bool((inside if len(inside) else sums).max() >= OTHER_LETTERS)


def scripts_of(prompt: str) -> frozenset[str]:
    """Return the scripts that an answer to a prompt may be in: the prompt's, Latin and Greek."""
    return ALWAYS_EXPECTED | {_script(c) for c in set(prompt) if not c.isascii() and c.isalpha()}


@cache
def _script(letter: str) -> str:
    """Return a letter's script, as Unicode's names begin; CJK for all of Chinese and Japanese.

    Python has no script property. Letter-like signs count as the letters they stand for.
    """
    plain = unicodedata.normalize("NFKC", letter)[0]
    word = unicodedata.name(plain, "UNKNOWN").split()[0]
    return _JOINED.get(word, word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What was seen in the completions of a run, by their row in its store."""

    flags: NDArray[np.uint8]  # [last row + 1] bits

    def looping(self, row: int) -> bool:
        """Whether reasoning or answer ends in a loop."""
        return bool(self.flags[row] & LOOP)

    def other_script(self, row: int) -> bool:
        """Whether reasoning or answer leaves the prompt's script."""
        return bool(self.flags[row] & SCRIPT)


def read_signals(run: RunReader) -> Signals:
    """Return the signals of all completions of a run; texts are read where nobody has before.

    What is new is kept beside the run where its folder can be written.
    """
    path = run.folder / SIGNALS
    known = _load(path)
    rows: list[tuple[int, int]] = []
    for row, text, reasoning, prompt_hash in run.written_texts(after=len(known) - 1):
        expected = _expected(run, prompt_hash)
        parts = (text, reasoning or "")
        loops = LOOP if any(map(ends_in_loop, parts)) else 0
        strays = SCRIPT if any(leaves_script(part, expected) for part in parts) else 0
        rows.append((row, loops | strays))
    if not rows:
        return Signals(flags=known)
    flags = np.zeros(rows[-1][0] + 1, np.uint8)
    flags[: len(known)] = known
    for row, found in rows:
        flags[row] = found
    _save(path, flags)
    return Signals(flags=flags)


def _expected(run: RunReader, prompt_hash: str | None) -> frozenset[str]:
    """Return the scripts of a stored prompt; a gated task's prompt isn't stored."""
    messages = None if prompt_hash is None else run.prompt(prompt_hash)
    return scripts_of("".join(m.content for m in messages or ()))


def _load(path: Path) -> NDArray[np.uint8]:
    none = np.zeros(1, np.uint8)  # rows count from 1
    if not path.is_file():
        return none
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["flags"], np.uint8) if arrays["version"] == VERSION else none
    except (OSError, ValueError, KeyError, BadZipFile):
        return none


def _save(path: Path, flags: NDArray[np.uint8]) -> None:
    draft = path.with_name(f"{SIGNALS}.{os.getpid()}.part.npz")
    with contextlib.suppress(OSError):  # a folder that can't be written: read again next time
        np.savez_compressed(draft, allow_pickle=False, version=np.array(VERSION), flags=flags)
        draft.replace(path)
