"""Grade answers stated after "The answer is:", by the official rules of BBEH.

The scoring reading is the function of google-deepmind/bbeh, bbeh/evaluate.py, in own words and with
its quirks: `official_match` gives its verdict. The second reading, which never scores, finds
answers in other forms ("**Answer:** 42", a box) and tells how often a right one was not extracted.
"""

import re

from g4eval.graders.extract import last_boxed
from g4eval.records import Grade, Outcome, Sample, Try

# Applied one after the other, each to what the one before left over.
_PREFIXES = ("The answer is:", "The final answer is ", "The final answer is: ", "The answer is ")
_LATEX = ("boxed{", "text{", "texttt{")
_STATED = re.compile(r"\banswer\b[*_]*(?:\s+is\b\s*:?|\s*:)[*_\s]*(\S[^\n]*)", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|texttt|textbf|mathrm|mathbf)\{([^{}]*)\}")
_EMPHASIS = re.compile(r"[*_`$\"]+")


class StatedAnswerGrader:
    """Compares the stated answer with the target, a text, by the official rules."""

    name = "stated_answer"
    needs_only_targets = True  # so a run can be graded again without its data
    version = 1

    def grade(self, one_try: Try) -> Grade:
        """Return the grade; without one of the official prefixes, a wrong text has no answer."""
        text, target = one_try.completion.text, one_try.sample.target
        prediction = official_prediction(text)
        right = official_match(text, target)
        prefixed = any(prefix in text for prefix in _PREFIXES)
        found = bool(prediction) and (right or prefixed)
        lenient = prediction if right else lenient_prediction(text)
        return Grade(
            key=one_try.key,
            grader=self.name,
            grader_version=self.version,
            outcome=_outcome(found=found, right=right),
            extraction=prediction if found else None,
            lenient_extraction=lenient or None,
            lenient_outcome=_outcome(
                found=bool(lenient), right=right or fuzzy_match(lenient, _reference(target))
            ),
        )

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str:  # noqa: ARG002  Grader
        """Return an answer in the asked form, right or wrong."""
        return f"The answer is: {sample.target if right else f'not {sample.target}'}"


def official_match(response: str, target: str) -> bool:
    """Return the verdict of the official `evaluate_correctness`."""
    return fuzzy_match(official_prediction(response), _reference(target))


def official_prediction(response: str) -> str:
    """Return what the official function compares: the last stated answer, on one line."""
    text = response.strip()
    for prefix in _PREFIXES:
        if prefix in text:
            text = text.rpartition(prefix)[2].strip()
    text = _without_latex(text.removesuffix(".")).lower()
    return text.replace(", ", ",").replace("**", "").split("\n")[0].removesuffix(".")


def fuzzy_match(prediction: str, reference: str) -> bool:
    """Return whether two prepared answers count as equal; the order of the rules matters."""
    if prediction == reference:
        return True
    if _is_lettered(prediction):
        return prediction[1] == reference
    if _is_lettered(reference):
        return reference[1] == prediction
    return (
        _equal_numbers(prediction, reference)
        or prediction.replace("'", "") == reference.replace("'", "")
        or f"[{reference}]" == prediction
        or f"[{prediction}]" == reference
        or prediction == f"{reference}?"
    )


def lenient_prediction(response: str) -> str:
    """Return the answer after the last "answer" phrase or in the last box, markup removed."""
    stated = None
    for match in _STATED.finditer(response):
        stated = match[1]
    found = stated if stated is not None else last_boxed(response)
    if found is None:
        return ""
    found = _TEXT.sub(r"\1", last_boxed(found) or found)
    return _EMPHASIS.sub("", found).strip().removesuffix(".").lower().replace(", ", ",")


def _without_latex(text: str) -> str:
    if text.startswith("$") and text.endswith("$"):
        text = text[1:-1]
    for opening in _LATEX:
        if text.endswith("}") and opening in text:
            text = text[:-1].split(opening)[1]
    return text


def _is_lettered(text: str) -> bool:
    return len(text) == 3 and text[0] == "(" and text[-1] == ")"


def _equal_numbers(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _reference(target: str) -> str:
    return target.strip().lower().replace(", ", ",")


def _outcome(*, found: bool, right: bool) -> Outcome:
    if not found:
        return Outcome.NO_ANSWER
    return Outcome.CORRECT if right else Outcome.INCORRECT
