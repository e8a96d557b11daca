# SPDX-License-Identifier: Apache-2.0
"""Pipelines in configuration files: their defaults, and faults with line and column."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from aetherless_cli.config import ConfigError, Violation, load, stages_of
from aetherless_cli.declaration import pipelines_of
from aetherless_common.stages import Stage

if TYPE_CHECKING:
    from pathlib import Path

FUNCTIONS = """\
functions:
  - {id: a, handler_path: h.py, trigger_port: 1, ipc: true}
  - {id: b, handler_path: h.py, trigger_port: 2, ipc: true}
  - {id: c, handler_path: h.py, trigger_port: 3, ipc: true}
  - {id: quiet, handler_path: h.py, trigger_port: 4}
pipelines:
"""
FIRST_LINE = FUNCTIONS.count("\n") + 1


def written(folder: Path, text: str) -> Path:
    """Write a file with the functions and these pipelines."""
    place = folder / "app"
    place.mkdir()
    (place / "h.py").touch()
    file = place / "c.yaml"
    file.write_text(FUNCTIONS + textwrap.indent(textwrap.dedent(text), "  "))
    return file


def problems(folder: Path, text: str) -> list[Violation]:
    """Return what is wrong with pipelines."""
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return caught.value.problems


def test_defaults(tmp_path: Path) -> None:
    """A stage has its function's id, the default method, and reads of the one before."""
    config = load(written(tmp_path, "- {id: p, stages: [{function: a}, {function: b}]}"))
    (pipeline,) = config.pipelines
    assert (pipeline.timeout_ms, pipeline.delivery) == (30_000, "at-least-once")
    assert stages_of(pipeline) == [Stage("a", "a", "", ()), Stage("b", "b", "", ("a",))]


def test_every_key_is_taken(tmp_path: Path) -> None:
    """Ids, methods, sources in their order, time and delivery; as the registry takes them."""
    text = """\
    - id: p
      timeout_ms: 1500
      delivery: at-most-once
      stages:
        - {id: in, function: a}
        - {id: out-1, function: b, method: half}
        - {id: out-2, function: c, from: [out-1, in]}
    """
    (spec,) = pipelines_of(load(written(tmp_path, text)))
    assert spec.timeout.ToMilliseconds() == 1500
    assert [each.stage_id for each in spec.stages] == ["in", "out-1", "out-2"]
    assert [list(getattr(each, "from")) for each in spec.stages] == [[], ["in"], ["out-1", "in"]]
    assert spec.stages[1].method == "half"


@pytest.mark.parametrize(
    ("stages", "column", "field", "words", "remedy"),
    [
        ("{function: a}, {function: quiet}", 48, "[1].function", "with ipc: true", "declare it"),
        ("{function: a}, {function: x}", 48, "[1].function", "no function x", "declare it"),
        ("{function: a}, {function: a}", 48, "[1].function", "function of stage 0", "stands once"),
        ("{function: a, from: [b]}, {function: b}", 42, "[0].from", "caller gives", "leave from"),
        ("{function: a}, {function: b, from: [c]}", 57, "[1].from", "c is none", "before this one"),
        ("{function: a}, {function: b, from: []}", 57, "[1].from", "only the first", "leave from"),
        ("{function: a}, {function: b, id: a}", 55, "[1].id", "the id of stage 0", "its own id"),
        ("{function: a}, {function: b, from: [b]}", 33, "[0].function", "nothing reads", "name it"),
    ],
)  # fmt: skip  # a table
def test_a_wrong_graph_is_shown_where_it_is_written(
    tmp_path: Path, stages: str, column: int, field: str, words: str, remedy: str
) -> None:
    """With the line and the column of the value, once, and with what to write instead."""
    found = problems(tmp_path, f"- {{id: p, stages: [{stages}]}}")
    place = (FIRST_LINE, column, f"pipelines[0].stages{field}")
    (told,) = [each for each in found if (each.line, each.column, each.field) == place]
    assert words in told.problem
    assert remedy in told.remedy


def test_a_stage_that_nothing_reads_of(tmp_path: Path) -> None:
    """Only the last may be one."""
    text = "- {id: p, stages: [{function: a}, {function: b}, {function: c, from: [a]}]}"
    (found,) = problems(tmp_path, text)
    assert (found.field, found.problem) == (
        "pipelines[0].stages[1].function",
        "nothing reads of stage b",
    )


def test_faults_of_keys(tmp_path: Path) -> None:
    """Unknown keys, wrong words and numbers, ids that are taken."""
    text = """\
    - {id: p, delivery: twice, stages: [{function: a, inputs: [b]}]}
    - {id: p, timeout_ms: 0, stages: []}
    - {id: q, name: x, stages: [{function: a, from: b, method: 1}]}
    """
    found = {(each.line - FIRST_LINE, each.field): each for each in problems(tmp_path, text)}
    assert "at-least-once" in found[0, "pipelines[0].delivery"].problem
    assert found[0, "pipelines[0].stages[0].inputs"].remedy == "use pipelines[].stages[].from"
    assert "also id of pipelines[0]" in found[1, "pipelines[1].id"].problem
    assert "at least 1" in found[1, "pipelines[1].timeout_ms"].problem
    assert (1, "pipelines[1].stages") in found
    assert found[2, "pipelines[2].name"].remedy == "use pipelines[].id"
    assert "a list" in found[2, "pipelines[2].stages[0].from"].problem
    assert "text" in found[2, "pipelines[2].stages[0].method"].problem
