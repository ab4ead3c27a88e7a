"""Multiple choice: which letter shows which option.

A sample whose fields hold `options` is a multiple-choice one: its target is the text of the right
option, and the order in which its prompt shows the options depends on sample and repeat alone. It
is the same on every machine and Python and in every subset of the samples.
"""

from hashlib import sha256

from g4eval.records import Sample

LETTERS = "ABCD"


def choice_order(sample_id: str, repeat: int, n_choices: int = 4) -> tuple[int, ...]:
    """Return which of the stored options stands at each place: a hash of its two first arguments.

    Raises ValueError for fewer than 2 or more than 4 options.
    """
    if not 2 <= n_choices <= len(LETTERS):
        raise ValueError(f"{n_choices} options; between 2 and {len(LETTERS)} can be shown")

    def digest(choice: int) -> bytes:
        return sha256(f"{sample_id}:{repeat}:{choice}".encode()).digest()

    return tuple(sorted(range(n_choices), key=digest))


def shown_options(sample: Sample, repeat: int) -> dict[str, str]:
    """Return the options by the letter that shows them, in the order of the prompt."""
    options = sample.fields["options"]
    order = choice_order(sample.sample_id, repeat, len(options))
    return {LETTERS[place]: options[choice] for place, choice in enumerate(order)}


def right_letter(sample: Sample, repeat: int) -> str:
    """Return the letter of the right option; a sample without options has the letter as target."""
    if "options" not in sample.fields:
        return str(sample.target)
    right = list(sample.fields["options"]).index(sample.target)
    order = choice_order(sample.sample_id, repeat, len(sample.fields["options"]))
    return LETTERS[order.index(right)]
