"""YAML from outside, read within limits: a few lines of it can stand for billions of values."""

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 17
MAX_VALUES = 50_000  # aliases written out
MAX_DEPTH = 100


class TooMuchYamlError(yaml.YAMLError):
    """A text that is YAML, and more of it than is read."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without dates: `2024-08-01` is text, as it is in JSON."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, or longer, deeper or larger than is read.
        ValueError: a number in it can't be read.
        RecursionError: it is nested far too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooMuchYamlError(f"{len(text):,} characters, and {MAX_CHARACTERS:,} are read")
    loader = _PlainLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {}, 0)
        return loader.construct_document(node)
    except (TypeError, AttributeError) as error:  # a key that is a list; a tag on another kind
        raise TooMuchYamlError(f"a value that YAML can't hold: {error}") from error
    finally:
        loader.dispose()


def _check_size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for; raises past the limit, and for one in itself."""
    if depth > MAX_DEPTH:
        raise TooMuchYamlError("it is nested too deeply")
    if id(node) in known:
        if (size := known[id(node)]) == 0:
            raise TooMuchYamlError("a value that contains itself")
        return size
    if isinstance(node, yaml.ScalarNode):
        return 1
    known[id(node)] = 0  # under way
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    size = 1
    for part in parts:
        size += _check_size(part, known, depth + 1)
        if size > MAX_VALUES:
            raise TooMuchYamlError(f"it stands for over {MAX_VALUES:,} values")
    known[id(node)] = size
    return size
