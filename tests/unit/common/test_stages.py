# SPDX-License-Identifier: Apache-2.0
"""Which graphs of stages are taken, and that the taken ones have one way in, one out, no cycle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless_common.stages import MOST_STAGES, Edge, Stage, edges, problems


def stages(*written: tuple[str, tuple[str, ...]]) -> list[Stage]:
    """Return stages whose functions have their ids."""
    return [Stage(name, name, "", sources) for name, sources in written]


DIAMOND = stages(("in", ()), ("left", ("in",)), ("right", ("in",)), ("out", ("right", "left")))


def test_a_diamond_is_in_order() -> None:
    """Fan-out and fan-in, with the inputs in the declared order."""
    assert problems(DIAMOND, {"in", "left", "right", "out"}) == []
    assert edges(DIAMOND) == [
        Edge("in", "left", 0),
        Edge("in", "right", 0),
        Edge("right", "out", 0),
        Edge("left", "out", 1),
    ]


@pytest.mark.parametrize(
    ("written", "index", "field", "words"),
    [
        (stages(("a", ("b",)), ("b", ("a",))), 0, "from", "takes what the caller gives"),
        (stages(("a", ()), ("b", ("c",)), ("c", ("b",))), 1, "from", "stage c stands later"),
        (stages(("a", ()), ("b", ("x",))), 1, "from", "stage x is none of this pipeline"),
        (stages(("a", ()), ("b", ("b",))), 1, "from", "stage b stands later"),
        (stages(("a", ()), ("b", ())), 1, "from", "only the first"),
        (stages(("a", ()), ("b", ("a", "a"))), 1, "from", "names a stage twice"),
        (stages(("a", ()), ("b", ("a",)), ("c", ("a",))), 1, "stage_id", "nothing reads of"),
        ([Stage("a", "f", "", ()), Stage("a", "g", "", ("a",))], 1, "stage_id", "a is also the id"),
        (stages(("a", ()), ("a", ("a",))), 1, "function_id", "a is also the function of stage 0"),
        ([Stage("a", "f", "", ()), Stage("b", "f", "", ("a",))], 1, "function_id", "function of"),
        ([Stage("a", "f", "x/y", ())], 0, "method", "without slash"),
        ([Stage("a b", "f", "", ())], 0, "stage_id", "must be 1 to 64 characters"),
        ([], 0, "stages", "must be 1 to"),
    ],
)
def test_what_is_wrong_is_said(written: list[Stage], index: int, field: str, words: str) -> None:
    """Each fault, at its stage and field."""
    found = problems(written, None)
    assert any(
        problem.number == index and problem.field == field and words in problem.text
        for problem in found
    ), found


def test_a_function_needs_a_channel() -> None:
    """When it is known which functions have one."""
    found = problems(stages(("a", ()), ("b", ("a",))), {"a"})
    assert [(each.number, each.field) for each in found] == [(1, "function_id")]


names = st.sampled_from("abcdef")
graphs = st.lists(
    st.builds(
        lambda name, sources: Stage(name, name, "", tuple(sources)),
        names,
        st.lists(names, max_size=3),
    ),
    max_size=6,
)


def reachable(start: str, steps: dict[str, set[str]]) -> set[str]:
    """Return what can be come to from a stage, without itself unless there is a cycle."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for each in steps.get(waiting.pop(), set()) - found:
            found.add(each)
            waiting.append(each)
    return found


@given(graphs)
def test_taken_graphs_have_one_way_in_one_out_and_no_cycle(written: list[Stage]) -> None:
    """Whatever is written: every stage lies between the first and the last, none behind itself."""
    if problems(written, None):
        return
    ahead: dict[str, set[str]] = {}
    for edge in edges(written):
        ahead.setdefault(edge.source, set()).add(edge.target)
    every = [stage.stage_id for stage in written]
    for stage in every:
        assert stage not in reachable(stage, ahead)
        assert stage == every[0] or stage in reachable(every[0], ahead)
        assert stage == every[-1] or every[-1] in reachable(stage, ahead)


@given(st.data())
def test_graphs_that_are_in_order_are_taken(data: st.DataObject) -> None:
    """Any chain with further inputs from before is taken, up to the most stages."""
    count = data.draw(st.integers(1, MOST_STAGES))
    made = [Stage("s0", "f0", "", ())]
    for index in range(1, count):
        further = data.draw(st.sets(st.integers(0, index - 1), max_size=3)) | {index - 1}
        sources = tuple(f"s{each}" for each in sorted(further))
        made.append(Stage(f"s{index}", f"f{index}", "m", sources))
    assert problems(made, {stage.function_id for stage in made}) == []
