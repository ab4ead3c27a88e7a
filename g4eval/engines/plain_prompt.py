"""The prompt of a model without a chat template: the turns' texts, an empty line between them."""

from collections.abc import Iterable

from g4eval.records import Message


def plain_prompt(messages: Iterable[Message]) -> str:
    """Return the prompt text; one turn goes out as it is."""
    return "\n\n".join(message.content for message in messages)
