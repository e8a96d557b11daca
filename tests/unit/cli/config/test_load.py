# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what is taken, and what is told of what is wrong."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from aetherless_cli.config import ConfigError, Violation, Warmup, load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a handler, below one that is not anybody's home."""
    place = tmp_path / "app"
    place.mkdir()
    (place / "hello.py").write_text("print()\n")
    return place


def problems(folder: Path, text: str) -> list[Violation]:
    """Return what is wrong with a text."""
    file = folder / "aetherless.yaml"
    file.write_text(textwrap.dedent(text))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.reason == "CONFIG_INVALID"
    assert caught.value.exit_status == 3
    return caught.value.problems


def at(found: list[Violation], line: int) -> Violation:
    """Return the one violation of a line."""
    (one,) = [violation for violation in found if violation.line == line]
    return one


def test_the_least_that_is_needed(folder: Path) -> None:
    """Id, handler and port are enough; all else has its documented default."""
    file = folder / "c.yaml"
    file.write_text("functions: [{id: a, handler_path: hello.py, trigger_port: 1}]\n")
    config = load(file)
    function = config.functions[0]
    assert config.orchestrator.restore_timeout_ms == 15
    assert config.orchestrator.shm_buffer_size == 4 << 20
    assert config.orchestrator.snapshot_dir == "/dev/shm/aetherless"
    assert (function.memory_limit_mb, function.timeout_ms) == (128, 30_000)
    assert (function.idle_after_ms, function.warmup) == (60_000, "http")
    assert function.handler_path == str(folder / "hello.py")
    assert function.root == str(folder)


def test_every_key_is_taken(folder: Path) -> None:
    """The published schema, with all optional keys."""
    file = folder / "c.yaml"
    file.write_text(
        textwrap.dedent("""\
        orchestrator: {shm_buffer_size: 65536, warm_pool_size: 1, restore_timeout_ms: 100000,
                       snapshot_dir: /dev/shm/x}
        functions:
          - {id: a-B_9, memory_limit_mb: 16384, trigger_port: 65535, handler_path: hello.py,
             timeout_ms: 900000, environment: {KEY: value}, restore_timeout_ms: 1,
             warmup: {path: /health}, idle_after_ms: 0, root: .., mounts: [/usr/share],
             capabilities: container, ipc: true, may_call: [a-B_9]}
        """)
    )
    function = load(file).functions[0]
    assert function.warmup == Warmup(path="/health")
    assert function.root == str(folder.parent)
    assert function.environment == {"KEY": "value"}
    assert function.capabilities == "container"
    assert (function.ipc, function.may_call) == (True, ["a-B_9"])


def test_everything_is_told_at_once_with_its_place(folder: Path) -> None:
    """One violation per fault, in the file's order, with line and column."""
    found = problems(
        folder,
        """\
        orchestrator:
          ebpf: {mode: xdp}
          warm_pool_size: 0
          snapshot_dir: relative
        functions:
          - id: hello api
            memory_limit_mb: 99999
            trigger_port: 8080
            handler_path: nope.py
            environment: {A: 1, PORT: "1"}
            volumes: []
            warmup: maybe
          - id: b
            trigger_port: 8080
            handler_pth: hello.py
            timeout_ms: 1:30
            capabilities: [SYS_ADMIN]
        pipelines: {}
        """,
    )
    assert [v.line for v in found] == sorted(v.line for v in found)
    assert at(found, 2).field == "orchestrator.ebpf"
    assert "trigger_port" in at(found, 2).remedy
    assert at(found, 3).problem == "must be at least 1, is 0"
    assert at(found, 4).problem == "must be an absolute path"
    assert (at(found, 6).column, at(found, 6).field) == (9, "functions[0].id")
    assert at(found, 7).problem == "must be at most 16384, is 99999"
    assert at(found, 9).reason == "HANDLER_NOT_FOUND"
    assert [v.problem for v in found if v.line == 10] == [
        "must be text; put it in quotes",
        "is set by aetherless (it is trigger_port); leave it out",
    ]
    assert at(found, 11).problem == "not in this version"
    assert at(found, 12).problem.startswith("must be 'http', 'tcp' or 'none', is ")
    assert at(found, 13).problem == "is required"
    assert "functions[0]" in at(found, 14).problem
    assert at(found, 15).remedy == "did you mean handler_path?"
    assert at(found, 17).problem == "must be 'none' or 'container', is ['SYS_ADMIN']"
    assert at(found, 18).field == "pipelines"


def test_yaml_1_1_sexagesimals_and_words_do_not_pass_as_text(folder: Path) -> None:
    """``no`` is False to YAML: it must not become the text "no" or "False"."""
    found = problems(
        folder,
        """\
        functions:
          - {id: no, handler_path: hello.py, trigger_port: "8080"}
        """,
    )
    assert {v.field: v.problem for v in found} == {
        "functions[0].id": "must be text; put it in quotes",
        "functions[0].trigger_port": "must be a whole number",
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("functions: [\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("--- 1\n--- 2\n", 2, "not YAML"),
        ("functions: !!python/name:os.system ''\n", 1, "not YAML"),
        ("[1, 2]\n", 1, "must be a mapping of keys to values"),
        ("functions: []\n", 1, "must have at least one entry"),
    ],
)
def test_what_is_no_configuration(folder: Path, text: str, line: int, words: str) -> None:
    """Broken and empty files are told as such, with a place."""
    (found,) = problems(folder, text)
    assert found.line == line
    assert words in found.problem


def test_text_that_is_not_utf8(folder: Path) -> None:
    """Bytes of another encoding are one violation, not a traceback."""
    file = folder / "c.yaml"
    file.write_bytes(b"functions: \xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "UTF-8" in caught.value.problems[0].problem


def test_a_key_given_twice_is_told(folder: Path) -> None:
    """YAML would silently take the last one."""
    found = problems(
        folder,
        """\
        functions:
          - {id: a, handler_path: hello.py, trigger_port: 1}
        functions:
          - {id: a, id: b, handler_path: hello.py, trigger_port: 1}
        """,
    )
    assert [(v.line, v.column, v.field) for v in found] == [
        (3, 1, "functions"),
        (4, 13, "functions[0].id"),
    ]


def test_errors_carry_violations_and_a_remedy(folder: Path) -> None:
    """What a program reads from -o json is in the error."""
    file = folder / "c.yaml"
    file.write_text("functions: []\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.violations[0].problem.startswith(f"{file}:1:12: functions: ")
    assert caught.value.remedy
    assert caught.value.domain == "cli.aetherless"


def test_only_functions_with_channels_call_each_other(folder: Path) -> None:
    """Both ends need one, and the callee is of the same file; each fault has its place."""
    found = problems(
        folder,
        """\
        functions:
          - {id: a, handler_path: hello.py, trigger_port: 1, ipc: true,
             may_call: [b,
                        c,
                        a]}
          - {id: b, handler_path: hello.py, trigger_port: 2}
          - {id: d, handler_path: hello.py, trigger_port: 3,
             may_call: [a]}
        """,
    )
    assert (at(found, 3).field, at(found, 3).remedy) == (
        "functions[0].may_call[0]",
        "add ipc: true to b",
    )
    assert at(found, 4).problem == "there is no function 'c' in this file"
    assert (at(found, 8).field, at(found, 8).problem) == (
        "functions[2].may_call",
        "needs a channel",
    )
    assert len(found) == 3


def test_a_function_with_a_channel_does_not_hurry_to_sleep(folder: Path) -> None:
    """A call is told of a few times a second, so the idle time is longer, or there is none."""
    text = """\
        functions:
          - {{id: a, handler_path: hello.py, trigger_port: 1, ipc: true, idle_after_ms: {}}}
        """
    (found,) = problems(folder, text.format(999))
    assert (found.line, found.field) == (2, "functions[0].idle_after_ms")
    (folder / "c.yaml").write_text(textwrap.dedent(text.format(1000)))
    assert load(folder / "c.yaml").functions[0].idle_after_ms == 1000


def test_only_a_function_with_a_channel_needs_no_port(folder: Path) -> None:
    """Nobody could call it otherwise; and without one there is nothing for a warm-up to ask."""
    found = problems(
        folder,
        """\
        functions:
          - {id: a, handler_path: hello.py}
          - {id: b, handler_path: hello.py, ipc: false, trigger_port: null}
          - {id: c, handler_path: hello.py, ipc: true,
             warmup: http}
          - {id: d, handler_path: hello.py, ipc: true}
        """,
    )
    assert [(v.line, v.field) for v in found] == [
        (2, "functions[0].trigger_port"),
        (3, "functions[1].trigger_port"),
        (5, "functions[2].warmup"),
    ]
    assert "ipc: true" in found[0].remedy
    text = "functions: [{id: a, handler_path: hello.py, ipc: true, warmup: none}]\n"
    (folder / "c.yaml").write_text(text)
    assert load(folder / "c.yaml").functions[0].trigger_port is None


def test_a_channel_has_no_keys_of_its_own(folder: Path) -> None:
    """It is asked for by yes or no."""
    (found,) = problems(
        folder,
        """\
        functions:
          - {id: a, handler_path: hello.py, trigger_port: 1, ipc: {ring: 4096}}
        """,
    )
    assert found.field == "functions[0].ipc"


def test_words_of_wrong_types(folder: Path) -> None:
    """What is written is shown beside what it must be."""
    found = problems(
        folder,
        """\
        orchestrator: {shm_buffer_size: 100000}
        functions:
          - {id: a, handler_path: hello.py, trigger_port: 1, ipc: yes please}
        pipelines:
          - {id: p, stages: [a]}
        """,
    )
    assert [each.problem for each in found] == [
        "must be a power of two, as 65536 or 131072, is 100000",
        "must be true or false, is 'yes please'",
        "must be a mapping of keys to values, is 'a'",
    ]
