"""Loops and switches of script in invented texts, with what must not be taken for either."""
# ruff: noqa: RUF001  letters that look alike are the point

import json
from pathlib import Path

import numpy as np
import pytest

from g4eval.gating import signals
from g4eval.gating.signals import ends_in_loop, leaves_script, read_signals, scripts_of
from g4eval.store.reader import RunReader
from tests.conftest import Cli

SENTENCE = "So we try the next value and see that it does not work either. "
TABLE = "".join(f"| {n} | {n * n} | {'even' if n % 2 == 0 else 'odd'} |\n" for n in range(1, 60))
CODE = "".join(f"    if x == {n}:\n        return {n}\n" for n in range(40)) + "    }\n" * 9
SUMS = "".join(f"S({n}) = S({n - 1}) + {n} = {n * (n + 1) // 2}.\n" for n in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        "Let x = 1. " + SENTENCE * 7,
        "Let x = 1. " + SENTENCE * 7 + SENTENCE[:30],  # the budget ended inside a round
        "the answer is " + "0" * 400,
        "a" + "\n" * 500,
        "Hence " + "ha " * 200,
        "x" * 40_000,
        "因为二的平方是四，所以" * 40,
        ("A long paragraph " + "of many words " * 3 + "is said again, word by word. ") * 6,
        "".join(f"{n} " for n in range(200)) * 8,  # a period of 690 characters
    ],
)
def test_a_text_that_ends_in_a_loop_is_found(text: str):
    assert ends_in_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 42.",
        SENTENCE * 4,  # said four times: under 400 characters
        SENTENCE * 20 + "No. Let me start over with n = 3: then the sum is 6, which works.",
        TABLE,
        "| a | b |\n|" + " --- |" * 60,  # the rule of a wide table
        CODE,
        SUMS,
        "=" * 120,
        "1/7 = 0." + "142857" * 30,
        "[" + ", ".join(["0"] * 100) + "]",
        "".join(f"{SENTENCE[:-2]}, step {n}. " for n in range(50)),  # it counts on
        "ab" * 199,  # a character short
    ],
)
def test_what_repeats_without_being_a_loop_is_none(text: str):
    assert not ends_in_loop(text)


def test_a_loop_that_a_text_leaves_again_is_none():
    assert not ends_in_loop("ha " * 400 + "Anyway: 5.")


ENGLISH = scripts_of("What is the smallest n such that ...?")
RUSSIAN = "Следовательно, ответ равен сорока двум"


@pytest.mark.parametrize(
    "text",
    [
        "Let n be even. 因为这个数是偶数所以我们可以把它除以二然后再继续计算直到得到奇数为止。",
        "The roots are 2 and 3. " + RUSSIAN + ".",
        "よって、求める答えは四十二であることがわかりました。",
        "因为 f(x) = 2x 是偶数，所以 g(y) 也是偶数，我们得到 h 的最小值是三。",  # variables between
        "따라서 구하는 답은 사십이이며 다른 경우는 없습니다.",
        "लेकिन यह संख्या सम है इसलिए उत्तर बयालीस है",
    ],
)
def test_an_answer_that_leaves_the_prompts_script_is_found(text: str):
    assert leaves_script(text, ENGLISH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 42.",
        "Let ε > 0 and δ = ε/2; then ∀x ∈ ℝ: |x − ξ| < δ ⇒ |ƒ(x) − ƒ(ξ)| < ε, with α, β, γ, Γ, Ω.",
        "αβγδεζηθικλμνξοπρστυφχψω" * 3,  # Greek is mathematics
        "𝑥 + 𝑦 = 𝑧, ℵ₀ < 𝔠, 𝒜𝒷𝒸𝒹𝑒𝒻𝓰𝒽𝒾𝒿𝓀𝓁𝓂𝓃𝑜𝓅𝓆𝓇𝓈𝓉",  # letter-like signs
        "Naïve Bézout: déjà vu, Erdős, Łoś, Weierstraß, İstanbul. " * 3,
        "The Shapley value (Шепли) and the word 数学 are quoted here.",
        "| 1 | ✓ |\n| 2 | ✗ |\n" * 40 + "→ ⇒ ∑ ∏ ∫ √ ≤ ≥ ≠ ∞ ⊕ ⊗" * 9,
        "print('ok')  # 42\n" * 50,
        "🤔" * 60,
    ],
)
def test_names_formulas_code_and_signs_are_no_other_script(text: str):
    assert not leaves_script(text, ENGLISH)


def test_the_prompts_own_script_is_expected():
    assert not leaves_script(RUSSIAN, scripts_of("Чему равна сумма?"))
    japanese = "よって答えは四十二であることがわかりました。"
    assert not leaves_script(japanese, scripts_of("次の和を求めよ"))
    assert leaves_script(RUSSIAN, scripts_of("次の和を求めよ"))


def test_signals_are_read_once_and_grow_with_the_run(
    quick_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = tmp_path / "script.jsonl"
    script.write_text(
        json.dumps({"sample_id": "demo_math-1", "text": "ha " * 200})
        + "\n"
        + json.dumps({"sample_id": "demo_math-2", "text": "1", "reasoning": RUSSIAN})
    )
    run = ("run", "demo_math", "--engine", "fake", "--run-id", "r",
           "--set", f"engine.script={script}", "--repeats")  # fmt: skip
    assert quick_cli(*run, "1").returncode == 0
    folder = tmp_path / "runs" / "r"

    def flagged() -> dict[str, list[tuple[str, int]]]:
        with RunReader(folder) as reader:
            found = read_signals(reader)
            rows = [(r[0], r[1], r[-1]) for r in reader.outcome_rows("demo_math")]
        return {
            name: sorted((s, k) for s, k, row in rows if getattr(found, name)(row))
            for name in ("looping", "other_script")
        }

    one = {"looping": [("demo_math-1", 0)], "other_script": [("demo_math-2", 0)]}
    assert flagged() == one
    monkeypatch.setattr(signals, "ends_in_loop", lambda _: False)  # known: not asked again
    assert flagged() == one
    monkeypatch.undo()
    assert quick_cli(*run, "2").returncode == 0
    assert flagged() == {name: [rows[0], (rows[0][0], 1)] for name, rows in one.items()}
    (folder / signals.SIGNALS).write_bytes(b"cut off")
    assert len(flagged()["looping"]) == 2
    monkeypatch.setattr(np, "savez_compressed", _read_only)
    (folder / signals.SIGNALS).unlink()
    assert len(flagged()["looping"]) == 2


def _read_only(*_: object, **__: object) -> None:
    raise PermissionError
