# SPDX-License-Identifier: Apache-2.0
"""Pipelines in a file: what is wrong with their graphs, and their stages with all defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless_cli.config.violation import Violation
from aetherless_common.stages import Problem, Stage, problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.config.models import PipelineConfig
    from aetherless_cli.config.nodes import Document

KEYS = {"function_id": "function", "stage_id": "id"}


def stages_of(pipeline: PipelineConfig) -> list[Stage]:
    """Return the stages of a checked pipeline, with all defaults filled in."""
    return _stages([stage.model_dump(by_alias=True) for stage in pipeline.stages])


def violations(document: Document) -> Iterator[Violation]:
    """Yield what is wrong with pipelines beyond what the schema says of each key."""
    functions = _callable(document.data)
    first: dict[str, int] = {}
    for index, written in _listed(document.data, "pipelines"):
        name = written.get("id")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            place: list[int | str] = ["pipelines", index, "id"]
            problem = f"{name} is also id of pipelines[{first[name]}]"
            yield _violation(document, place, problem, "give each its own id")
        entries = written.get("stages")
        if isinstance(entries, list) and entries and all(map(_is_whole, entries)):
            for found in problems(_stages(entries), functions):
                yield _of_graph(document, index, entries, found)


def _stages(entries: list[dict[str, Any]]) -> list[Stage]:
    """Return stages as written, each with its defaults: its function's id, the stage before."""
    made: list[Stage] = []
    for entry in entries:
        sources = entry.get("from")
        if sources is None:
            sources = [made[-1].stage_id] if made else []
        stage_id = entry.get("id") or entry["function"]
        made.append(Stage(stage_id, entry["function"], entry.get("method") or "", tuple(sources)))
    return made


def _is_whole(entry: Any) -> bool:
    """Tell whether a stage has the right types; where it has not, the schema says so."""
    if not isinstance(entry, dict) or not isinstance(entry.get("function"), str):
        return False
    texts = (entry.get("id", ""), entry.get("method", ""), *(entry.get("from") or ()))
    return isinstance(entry.get("from", []), list | None) and all(
        isinstance(text, str | None) for text in texts
    )


def _of_graph(
    document: Document, pipeline: int, entries: list[dict[str, Any]], found: Problem
) -> Violation:
    """Return a graph's problem at the place where it is written."""
    place: list[int | str] = ["pipelines", pipeline, "stages"]
    if found.field != "stages":
        key = KEYS.get(found.field, found.field)
        place += [found.number, "function" if key not in entries[found.number] else key]
    return _violation(document, place, found.text, found.remedy)


def _violation(document: Document, place: list[int | str], problem: str, remedy: str) -> Violation:
    line, column = document.position(place)
    dotted = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return Violation(line, column, dotted.lstrip("."), problem, remedy)


def _callable(data: Any) -> set[str]:
    """Return the ids of the functions that have a channel."""
    return {
        entry["id"]
        for _, entry in _listed(data, "functions")
        if entry.get("ipc") is True and isinstance(entry.get("id"), str)
    }


def _listed(data: Any, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data.get(key) if isinstance(data, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry
