# SPDX-License-Identifier: Apache-2.0
"""YAML as a tree of nodes: the plain data, and the line and column of each part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aetherless_cli.config.violation import Violation

Location = Sequence[int | str]
STANDARD_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain data and its node tree."""

    data: Any
    root: yaml.Node

    def position(self, location: Location, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at a location, or of the nearest thing above it.

        With ``of_key`` the key counts where the last step is one.
        """
        node, mark = self.root, self.root.start_mark
        for step in location:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
            mark = (key or node).start_mark if of_key else node.start_mark
        return mark.line + 1, mark.column + 1


class YamlError(Exception):
    """The text is not YAML, or uses YAML that has no meaning here."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.problem)
        self.violation = violation


class _Loader(yaml.CSafeLoader):
    """Knows where a value stands that has no meaning (a month 13, a number of 5000 digits)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 (PyYAML's)
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = f"no value of {node.tag.removeprefix(STANDARD_TAG)}: {error}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


def parse(text: str) -> Document:
    """Parse one YAML document.

    Raises:
        YamlError: it can't be parsed, or holds nothing.
    """
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise YamlError(_from_yaml(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        problem = f"not YAML: character #x{error.character:04x}: {error.reason}"
        raise YamlError(Violation(line, 1, "", problem, "remove it")) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(Violation(1, 1, "", f"not YAML: {error}")) from error
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        remedy = "declare at least one function under 'functions:'"
        raise YamlError(Violation(1, 1, "", "the file is empty", remedy))
    return Document(data, node)


def duplicate_keys(document: Document) -> Iterator[Violation]:
    """Yield each key that a mapping has twice; YAML itself would let the last one win."""
    seen_nodes: set[int] = set()
    waiting: list[tuple[yaml.Node, str]] = [(document.root, "")]
    while waiting:
        node, path = waiting.pop()
        if id(node) in seen_nodes:
            continue
        seen_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _duplicates_of(node, path)
        waiting.extend(_children(node, path))


def _duplicates_of(node: yaml.MappingNode, path: str) -> Iterator[Violation]:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        line = key.start_mark.line + 1
        if (key.tag, key.value) in first:
            before = first[key.tag, key.value]
            problem = f"the key is given twice, first in line {before}"
            field = f"{path}.{key.value}".lstrip(".")
            yield Violation(line, key.start_mark.column + 1, field, problem, "keep one of them")
        first.setdefault((key.tag, key.value), line)


def _children(node: yaml.Node, path: str) -> Iterator[tuple[yaml.Node, str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield value, f"{path}.{key.value}".lstrip(".")
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield value, f"{path}[{index}]"


def _child(node: yaml.Node, step: int | str) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    return None


def _from_yaml(error: yaml.MarkedYAMLError) -> Violation:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = " ".join(part for part in (error.context, error.problem) if part)
    return Violation(line, column, "", f"not YAML: {problem}", "check indentation, ':' and quotes")
