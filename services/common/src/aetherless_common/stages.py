# SPDX-License-Identifier: Apache-2.0
"""The stages of a pipeline as a graph: what is wrong with it, and which edges it has. Pure.

A stage names the stages it reads of, all of which stand before it in the list, so a graph that is
in order has no cycle. The first stage is the only one that reads of none, the last the only one
that nothing reads of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
METHOD = re.compile(r"[!-.0-~]{0,64}")  # printable ASCII without slash and space
MOST_STAGES = 32


@dataclass(frozen=True, slots=True)
class Stage:
    """One function of a pipeline.

    Args:
        stage_id: its name within the pipeline.
        function_id: the function.
        method: the method of its handler; empty for the default one.
        sources: the ids of the stages it reads of, in the order in which it is handed them.
    """

    stage_id: str
    function_id: str
    method: str
    sources: tuple[str, ...]


def of_messages(messages: Iterable[Any]) -> tuple[Stage, ...]:
    """Return the stages of a contract's messages, each with its id: that of its function, if none.

    Args:
        messages: ``Stage`` of the registry's contract or of the ipc service's.
    """
    return tuple(
        Stage(
            each.stage_id or each.function_id,
            each.function_id,
            each.method,
            tuple(getattr(each, "from")),  # a word of Python's
        )
        for each in messages
    )


class Edge(NamedTuple):
    """From the stage that writes to the stage that reads; ``position`` among that one's inputs."""

    source: str
    target: str
    position: int


class Problem(NamedTuple):
    """What is wrong with a ``field`` (stages, stage_id, function_id, method, from) of a stage.

    ``remedy`` says what to write instead, in the words of the configuration file.
    """

    number: int
    field: str
    text: str
    remedy: str = ""


def problems(stages: Sequence[Stage], callable_functions: Container[str] | None) -> list[Problem]:
    """Return all that is wrong with the stages, in their order.

    Args:
        stages: the stages.
        callable_functions: the functions that have a channel; None when that is not known.
    """
    if not 1 <= len(stages) <= MOST_STAGES:
        return [Problem(0, "stages", f"must be 1 to {MOST_STAGES} stages, are {len(stages)}")]
    found = [
        Problem(index, *problem)
        for index, stage in enumerate(stages)
        for problem in _of_one(stage, callable_functions)
    ]
    found += _twice(stages)
    found += _disorder(stages)
    return sorted(found, key=lambda problem: problem.number)


def edges(stages: Sequence[Stage]) -> list[Edge]:
    """Return the edges of stages that are in order, by the stage that reads."""
    return [
        Edge(source, stage.stage_id, position)
        for stage in stages
        for position, source in enumerate(stage.sources)
    ]


def _of_one(
    stage: Stage, callable_functions: Container[str] | None
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with a stage by itself: field, text, remedy."""
    if not ID.fullmatch(stage.stage_id):
        yield "stage_id", "must be 1 to 64 characters of A-Z a-z 0-9 _ -", ""
    if not METHOD.fullmatch(stage.method):
        text = "must be at most 64 printable characters, without slash and space"
        yield "method", text, "write the name that the handler serves"
    if callable_functions is not None and stage.function_id not in callable_functions:
        text = f"no function {stage.function_id} with ipc: true"
        yield "function_id", text, "name one, or declare it under functions: with ipc: true"


def _twice(stages: Sequence[Stage]) -> Iterator[Problem]:
    """Yield functions and stage ids that stand again; one and the same is told once."""
    functions: dict[str, int] = {}
    ids: dict[str, int] = {}
    for index, stage in enumerate(stages):
        first = functions.setdefault(stage.function_id, index)
        namesake = ids.setdefault(stage.stage_id, index)
        if first != index:
            text = f"{stage.function_id} is also the function of stage {first}"
            yield Problem(index, "function_id", text, "a function stands once in a pipeline")
        elif namesake != index:
            text = f"{stage.stage_id} is also the id of stage {namesake}"
            yield Problem(index, "stage_id", text, "give each stage its own id")


def _disorder(stages: Sequence[Stage]) -> Iterator[Problem]:
    """Yield what keeps the stages from being one way from the first to the last."""
    every = {stage.stage_id for stage in stages}
    before: set[str] = set()
    read = {source for stage in stages for source in stage.sources}
    for index, stage in enumerate(stages):
        if index == 0 and stage.sources:
            text = "the first stage takes what the caller gives, not stages"
            yield Problem(index, "from", text, "leave from out here")
        elif index and not stage.sources:
            text = "only the first stage may read of none"
            yield Problem(index, "from", text, "leave from out for the stage before")
        if len(set(stage.sources)) != len(stage.sources):
            yield Problem(index, "from", "names a stage twice", "name each once")
        for source in stage.sources if index else ():
            if source not in before:
                word = "stands later" if source in every else "is none of this pipeline"
                text = f"stage {source} {word}; inputs stand before"
                yield Problem(index, "from", text, "name stages that stand before this one")
        if stage.stage_id not in read and index < len(stages) - 1:
            text = f"nothing reads of stage {stage.stage_id}"
            yield Problem(index, "stage_id", text, "name it in the from of a later stage")
        before.add(stage.stage_id)
