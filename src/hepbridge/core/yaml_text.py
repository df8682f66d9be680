"""YAML from anywhere: plain values only, and no more of them than the text is long."""

from __future__ import annotations

from typing import Any

import yaml

from hepbridge.core.errors import ConfigError

__all__ = ["parse_yaml"]

MAX_VALUES = 100_000  # after aliases, of which a few lines can make billions


def parse_yaml(text: str, where: str) -> Any:
    """The record of a YAML text. Runs no code: tags of Python objects are refused.

    Raises ConfigError, which begins with ``where``, if the text is no YAML, if its blocks are too
    deep, or if its aliases multiply.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _size(node, {}) > MAX_VALUES:
            raise ConfigError(f"{where}: its aliases (*name) make more than {MAX_VALUES} values")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: impossible dates
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a node, those of its aliases counted each time."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what it is as long as it is not counted: inside itself
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]
