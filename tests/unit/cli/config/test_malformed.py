# SPDX-License-Identifier: Apache-2.0
"""Malformed configuration files of every kind: one typed error, with places, at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from aetherless_cli.config import ConfigError, Violation, load

if TYPE_CHECKING:
    from pathlib import Path

# A bound on what a file may cost; a healthy one takes milliseconds.
PATIENCE_S = 20.0
ENTRY = "functions:\n- {id: a, handler_path: h.py, trigger_port: 1%s}\n"


def bomb(levels: int = 11) -> str:
    """Return nine lists of nine lists of ...: billions of values in some lines."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for level in range(1, levels):
        name, below = chr(ord("a") + level), chr(ord("a") + level - 1)
        lines.append(f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a handler."""
    (tmp_path / "h.py").write_text("print()\n")
    return tmp_path


def problems(folder: Path, content: bytes) -> list[Violation]:
    """Return what is wrong with a file, which must be told in bounded time."""
    file = folder / "c.yaml"
    file.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert time.monotonic() - began < PATIENCE_S
    assert caught.value.exit_status == 3
    assert caught.value.metadata["path"] == str(file)
    return caught.value.problems


NOT_YAML = [
    ("a tab", "functions:\n\t- id: a\n", 2, "cannot start any token"),
    ("a wrong indentation", "functions:\n  - id: a\n handler_path: x\n", 3, "expected key"),
    ("two colons", "a: b: c", 1, "not allowed in this context"),
    ("an open quote", "functions: 'abc\n", 2, "end of stream"),
    ("an open bracket", "functions: [\n", 2, "node content"),
    ("an at sign", "functions: @x\n", 1, "cannot start any token"),
    ("a backtick", "functions: `x`\n", 1, "cannot start any token"),
    ("another version", "%YAML 9.9\n---\n{}", 1, "incompatible"),
    ("a directive", "%FOO\n", 1, "unknown directive"),
    ("two documents", "a: 1\n---\nb: 2\n", 2, "another document"),
    ("an alias of nothing", "functions: *nope\n", 1, "undefined alias"),
    ("a tag of Python's", "functions: !!python/object/apply:os.system [true]\n", 1, "tag"),
    ("a tag of nobody's", "functions: !foo []\n", 1, "tag"),
    ("an empty tag", "functions: !<> []\n", 1, "tag URI"),
    ("the value key", "functions: =\n", 1, "tag"),
    ("a list as key", "x: 1\n? [a]\n: b\n", 2, "unhashable"),
    ("a mapping as key", "? {a: b}\n: c\n", 1, "unhashable"),
    ("a bomb as key", bomb() + "? *k\n: 1\n", 11, "unhashable"),
    ("a merge of a number", "functions:\n- {<<: 3, id: a}\n", 2, "merging"),
    ("5000 brackets", "functions: " + "[" * 5000 + "]" * 5000, 1, "nesting depth"),
    ("100000 brackets", "functions: " + "[" * 100_000, 1, "nesting depth"),
    ("3000 levels", "".join(" " * n + "a:\n" for n in range(3000)), 1000, "nesting depth"),
    ("half a surrogate", 'functions: [{id: "\\ud800"}]\n', 1, "invalid Unicode"),
    ("a control character", "a: 1\nfunctions: \x07", 2, "#x0007"),
    ("a NUL", "functions: \0", 1, "#x0000"),
    ("5000 digits", "functions:\n- {trigger_port: " + "9" * 5000 + "}\n", 2, "4300 digits"),
    ("a month 13", "functions:\n- {id: 2020-13-41}\n", 2, "month"),
    ("a time zone of 25 hours", "functions: 2001-12-14t21:59:43.10-25:00\n", 1, "24"),
    ("a number that is none", "functions: !!int abc\n", 1, "invalid literal"),
    ("INI", "[functions]\nid=a\n", 2, "document start"),
    ("TOML", "[[functions]]\nid = 'a'\n", 2, "document start"),
]
NOT_A_CONFIGURATION = [
    ("nothing", "", 1, "", "empty"),
    ("a comment", "# x\n", 1, "", "empty"),
    ("white space", "  \n\n", 1, "", "empty"),
    ("a separator", "---\n", 2, "", "must be a mapping"),
    ("null", "null\n", 1, "", "must be a mapping"),
    ("a list", "- a\n", 1, "", "must be a mapping"),
    ("a word", "hello\n", 1, "", "must be a mapping"),
    ("a number", "3\n", 1, "", "must be a mapping"),
    ("XML", "<functions/>\n", 1, "", "must be a mapping"),
    ("no functions", "orchestrator: {}\n", 1, "functions", "is required"),
    ("functions that are null", "functions:\n", 1, "functions", "must be a list"),
    ("functions that are none", "functions: []\n", 1, "functions", "at least one entry"),
    ("functions by name", "functions: {a: b}\n", 1, "functions", "must be a list"),
    ("a set of functions", "functions: !!set {a}\n", 1, "functions", "must be a list"),
    ("a function that is null", "functions:\n-\n", 2, "functions[0]", "must be a mapping"),
    ("a function that is a list", "functions: [[1]]\n", 1, "functions[0]", "must be a mapping"),
    ("a function that is a word", "functions: [a]\n", 1, "functions[0]", "must be a mapping"),
    ("itself", "functions: &x [*x]\n", 1, "functions[0]", "must be a mapping"),
    ("a byte order mark", "\ufefffunctions: []\n", 1, "functions", "at least one entry"),
    ("an unknown key", "verison: 1\n" + ENTRY % "", 1, "verison", "no such key"),
    ("a number as key", "1: 2\n" + ENTRY % "", 1, "[1]", "must be text"),
    ("null as key", "~: 2\n" + ENTRY % "", 1, "None", "must be text"),
    ("a bomb", bomb() + ENTRY % "", 1, "a", "no such key"),
    ("the orchestrator as list", "orchestrator: []\n" + ENTRY % "", 1, "orchestrator", "a mapping"),
]
WRONG_VALUES = [
    ("port", "trigger_port", '"80"', "whole number"),
    ("port", "trigger_port", "80.0", "whole number"),
    ("port", "trigger_port", ".nan", "whole number"),
    ("port", "trigger_port", "-.inf", "whole number"),
    ("port", "trigger_port", "off", "whole number"),
    ("port", "trigger_port", "[80]", "whole number"),
    ("port", "trigger_port", "-1", "at least 1"),
    ("port", "trigger_port", "0", "at least 1"),
    ("port", "trigger_port", "65536", "at most 65535"),
    ("port", "trigger_port", "9" * 4000, "at most 65535"),
    ("id", "id", "yes", "must be text"),
    ("id", "id", "2020-01-01", "must be text"),
    ("id", "id", "!!binary aGk=", "must be text"),
    ("id", "id", "''", "must match"),
    ("id", "id", "'a b'", "must match"),
    ("id", "id", "'../../etc'", "must match"),
    ("id", "id", "x" * 100_000, "must match"),
    ("id", "id", '"\\U0001F600"', "must match"),
    ("id", "id", '"a\\n"', "must match"),
    ("handler", "handler_path", '"a\\0b"', "NUL"),
    ("handler", "handler_path", "''", "at least 1 character"),
    ("handler", "handler_path", "[h.py]", "must be text"),
    ("handler", "handler_path", "x" * 300 + ".py", "File name too long"),
    ("memory", "memory_limit_mb", "1e400", "whole number"),
    ("environment", "environment", "{1: x}", "must be text"),
    ("environment", "environment", "[A=1]", "must be a mapping"),
    ("environment", "environment", "{A=B: x}", "no name of an environment variable"),
    ("environment", "environment", f"{{A: {'x' * 200_000}}}", "131072 bytes"),
    ("warmup", "warmup", "{path: x}", "must match"),
    ("warmup", "warmup", "[http]", "must be 'http', 'tcp' or 'none'"),
    ("mounts", "mounts", "[/nonexistent]", "no such file or folder"),
    ("mounts", "mounts", "[relative]", "absolute path"),
    ("root", "root", "/", "the host's own"),
    ("root", "root", "/proc/self", "the host's own"),
]


@pytest.mark.parametrize(
    ("text", "line", "words"), [row[1:] for row in NOT_YAML], ids=[row[0] for row in NOT_YAML]
)
def test_what_is_no_yaml(folder: Path, text: str, line: int, words: str) -> None:
    """The parser's words, and where."""
    (found,) = problems(folder, text.encode("utf-8", "surrogatepass"))
    assert found.problem.startswith("not YAML: ")
    assert words in found.problem
    assert found.line == line
    assert found.remedy


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [row[1:] for row in NOT_A_CONFIGURATION],
    ids=[row[0] for row in NOT_A_CONFIGURATION],
)
def test_what_is_no_configuration(
    folder: Path, text: str, line: int, field: str, words: str
) -> None:
    """The first fault in the file's order, with its place."""
    found = problems(folder, text.encode())[0]
    assert (found.line, found.field) == (line, field)
    assert words in found.problem


@pytest.mark.parametrize(("key", "value", "words"), [row[1:] for row in WRONG_VALUES])
def test_a_wrong_value(folder: Path, key: str, value: str, words: str) -> None:
    """One violation, at the key's line, whose text is short however long the value is."""
    entry = {"id": "a", "handler_path": "h.py", "trigger_port": "1", key: value}
    text = "functions:\n-\n" + "".join(f"  {name}: {entry[name]}\n" for name in entry)
    (found,) = problems(folder, text.encode())
    assert found.line == 3 + list(entry).index(key)
    assert found.field.startswith(f"functions[0].{key}")
    assert words in found.problem
    assert len(found.problem) < 1000


def test_a_bomb_in_a_value(folder: Path) -> None:
    """Aliases that stand for billions of values are never spelt out."""
    found = problems(folder, (bomb() + ENTRY % ", environment: {A: *k}").encode())
    assert found[-1].problem == "must be text; put it in quotes"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings(folder: Path, encoding: str) -> None:
    """Only UTF-8 is text here."""
    (found,) = problems(folder, "functions: [{id: é}]".encode(encoding))
    assert "UTF-8" in found.problem


def test_a_file_without_end(folder: Path) -> None:
    """What is far too large is not read to its end."""
    (folder / "c.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError) as caught:
        load(folder / "c.yaml")
    assert "larger than" in caught.value.problems[0].problem


def test_two_functions_with_one_port(folder: Path) -> None:
    """Both are named; the second one is where the fault is."""
    entry = "- {id: %s, handler_path: h.py, trigger_port: 8080}\n"
    (found,) = problems(folder, f"functions:\n{entry % 'a'}{entry % 'b'}".encode())
    assert (found.line, found.field) == (3, "functions[1].trigger_port")
    assert found.problem == "8080 is also trigger_port of functions[0]"


def test_many_faults_are_all_told(folder: Path) -> None:
    """A file with 300 wrong entries has 300 violations, in their order."""
    entries = "".join(f"- {{id: a{n}, handler_path: h.py, trigger_port: 0}}\n" for n in range(300))
    found = problems(folder, f"functions:\n{entries}".encode())
    assert [v.line for v in found if "at least 1" in v.problem] == list(range(2, 302))
