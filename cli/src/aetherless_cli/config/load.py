# SPDX-License-Identifier: Apache-2.0
"""From a file to a checked configuration, or to everything that is wrong with it."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from aetherless_cli.config import nodes, paths, pipelines, unknown
from aetherless_cli.config.models import (
    Config,
    FunctionConfig,
    Orchestrator,
    PipelineConfig,
    StageConfig,
    Warmup,
)
from aetherless_cli.config.violation import ConfigError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless_cli.config.nodes import Document, Location

MODELS: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    ((), Config),
    (("orchestrator",), Orchestrator),
    (("functions", "*"), FunctionConfig),
    (("functions", "*", "warmup"), Warmup),
    (("pipelines", "*"), PipelineConfig),
    (("pipelines", "*", "stages", "*"), StageConfig),
)
# Calls through a channel are told of a few times a second.
LEAST_IDLE_MS = 1000
LARGEST = 16 << 20  # bytes; a file is read whole
NOT_IN_THE_FILE = {"word", "mapping", "[key]"}  # steps that pydantic adds to a location
WORDS = {
    "missing": "is required",
    "greater_than_equal": "must be at least {ge}, is {given}",
    "less_than_equal": "must be at most {le}, is {given}",
    "too_short": "must have at least one entry",
    "string_pattern_mismatch": "must match {pattern}, is {given}",
    "literal_error": "must be {expected}, is {given}",
    "value_error": "{error}",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false, is {given}",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "invalid_key": "must be text; put it in quotes",
    "model_type": "must be a mapping of keys to values, is {given}",
    "model_attributes_type": "must be a mapping of keys to values, is {given}",
}


def load(path: Path) -> Config:
    """Return the checked configuration; its paths are absolute and exist.

    Raises:
        ConfigError: with each thing that is wrong.
        OSError: the file can't be read.
    """
    try:
        document = nodes.parse(_read(path))
    except nodes.YamlError as problem:
        raise ConfigError(path, [problem.violation]) from problem
    except UnicodeDecodeError as error:
        raise ConfigError(path, [Violation(1, 1, "", "the file is not UTF-8 text")]) from error
    violations = [*nodes.duplicate_keys(document), *_repeated(document)]
    violations += [*_callees(document), *_restless(document), *_unreachable(document)]
    violations += pipelines.violations(document)
    config, found = _validate(document)
    violations += found
    resolved, found = _resolve(document, path.resolve().parent)
    violations += found
    if violations or config is None:
        raise ConfigError(path, violations)
    return config.model_copy(update={"functions": _with_paths(config.functions, resolved)})


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        problem = f"the file is larger than {LARGEST >> 20} MiB"
        raise ConfigError(path, [Violation(1, 1, "", problem, "name a configuration file")])
    return content.decode("utf-8")


def _validate(document: Document) -> tuple[Config | None, list[Violation]]:
    try:
        return Config.model_validate(document.data), []
    except ValidationError as error:
        found = {_violation(document, entry): None for entry in error.errors(include_url=False)}
        return None, list(found)


def _violation(document: Document, entry: Any) -> Violation:
    location = [step for step in entry["loc"] if step not in NOT_IN_THE_FILE]
    kind = entry["type"]
    of_key = kind in {"extra_forbidden", "invalid_key"} or entry["loc"][-1:] == ("[key]",)
    line, column = document.position(location, of_key=of_key)
    remedy = ""
    if kind == "extra_forbidden":
        problem, remedy = unknown.explain(location, _siblings(location))
    else:
        problem = _problem(kind, entry)
    return Violation(line, column, _dotted(location), problem, remedy)


def describe(entry: Any) -> tuple[str, str]:
    """Return the key and the problem of one of pydantic's errors, in the words used here."""
    location = [step for step in entry["loc"] if step not in NOT_IN_THE_FILE]
    return _dotted(location), _problem(entry["type"], entry)


def _problem(kind: str, entry: Any) -> str:
    context = entry.get("ctx", {})
    given = reprlib.repr(entry.get("input"))  # bounded: aliases can stand for billions of values
    words = WORDS.get(kind, entry["msg"])
    return str(words.format(given=given, **context) if kind in WORDS else words)


def _siblings(location: Location) -> list[str]:
    parent = tuple("*" if isinstance(step, int) else step for step in location[:-1])
    return [
        field.alias or name
        for where, model in MODELS
        if where == parent
        for name, field in model.model_fields.items()
    ]


def _dotted(location: Location) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _declared(document: Document) -> Iterator[tuple[int, dict[str, Any]]]:
    data = document.data
    functions = data.get("functions") if isinstance(data, dict) else None
    for index, entry in enumerate(functions if isinstance(functions, list) else []):
        if isinstance(entry, dict):
            yield index, entry


def _repeated(document: Document) -> Iterator[Violation]:
    for key, remedy in (("id", "give each its own id"), ("trigger_port", "give each its own port")):
        first: dict[int | str, int] = {}
        for index, entry in _declared(document):
            value = entry.get(key)
            if not isinstance(value, int | str):
                continue
            location = ("functions", index, key)
            if value in first:
                line, column = document.position(location)
                problem = f"{value} is also {key} of functions[{first[value]}]"
                yield Violation(line, column, _dotted(location), problem, remedy)
            first.setdefault(value, index)


def _callees(document: Document) -> Iterator[Violation]:
    """Find the functions in may_call that can't be called: unknown here, or without a channel."""
    declared = {str(entry.get("id")): entry for _, entry in _declared(document)}
    for index, entry in _declared(document):
        callees = entry.get("may_call")
        if not isinstance(callees, list) or not callees:
            continue
        if entry.get("ipc") is not True:
            yield _violation_at(
                document, ("functions", index, "may_call"), "needs a channel", "add ipc: true here"
            )
        for number, callee in enumerate(callees):
            place = ("functions", index, "may_call", number)
            if not isinstance(callee, str):
                continue  # the schema says so
            if callee not in declared:
                problem = f"there is no function {reprlib.repr(callee)} in this file"
                yield _violation_at(document, place, problem, "name one by its id")
            elif declared[callee].get("ipc") is not True:
                remedy = f"add ipc: true to {callee}"
                yield _violation_at(document, place, f"{callee} has no channel", remedy)


def _restless(document: Document) -> Iterator[Violation]:
    """Find idle times that a call through a channel could outlast unseen."""
    for index, entry in _declared(document):
        idle = entry.get("idle_after_ms")
        if entry.get("ipc") is True and isinstance(idle, int) and 0 < idle < LEAST_IDLE_MS:
            problem = f"must be 0 or at least {LEAST_IDLE_MS} with ipc: true, is {idle}"
            yield _violation_at(document, ("functions", index, "idle_after_ms"), problem, "")


def _unreachable(document: Document) -> Iterator[Violation]:
    """Find functions that nobody could call, and warm-ups that ask where nothing listens."""
    for index, entry in _declared(document):
        place = ("functions", index)
        if entry.get("trigger_port") is not None:
            continue
        if entry.get("ipc") is not True:
            remedy = "name the port it listens on; or add ipc: true, if it serves a channel"
            problem = "is required of a function without ipc: true"
            yield _violation_at(document, (*place, "trigger_port"), problem, remedy)
        elif entry.get("warmup", "none") != "none":
            problem = "asks on a port, and the function has no trigger_port"
            remedy = "leave it out, or name the port as trigger_port"
            yield _violation_at(document, (*place, "warmup"), problem, remedy)


def _violation_at(document: Document, place: Location, problem: str, remedy: str) -> Violation:
    line, column = document.position(place)
    return Violation(line, column, _dotted(place), problem, remedy)


def _resolve(document: Document, folder: Path) -> tuple[dict[int, dict[str, Any]], list[Violation]]:
    resolved: dict[int, dict[str, Any]] = {}
    violations: list[Violation] = []
    for index, entry in _declared(document):
        place: list[int | str] = ["functions", index, "handler_path"]
        try:
            handler = _resolve_handler(entry, folder)
            if handler is not None:
                place[2] = "root"
                root = _resolve_root(entry, folder, handler)
                resolved[index] = {"handler_path": str(handler), "root": root}
        except paths.PathError as found:
            violations.append(_path_violation(document, place, found))
        violations += _check_mounts(document, index, entry)
    return resolved, violations


def _check_mounts(document: Document, index: int, entry: dict[str, Any]) -> Iterator[Violation]:
    mounts = entry.get("mounts")
    for number, written in enumerate(mounts if isinstance(mounts, list) else []):
        if isinstance(written, str) and written.startswith("/") and "\0" not in written:
            try:
                paths.check_mount(written)
            except paths.PathError as found:
                place = ("functions", index, "mounts", number)
                yield _path_violation(document, place, found)


def _path_violation(document: Document, place: Location, found: paths.PathError) -> Violation:
    line, column = document.position(place)
    return Violation(line, column, _dotted(place), found.problem, found.remedy, found.reason)


def _resolve_handler(entry: dict[str, Any], folder: Path) -> Path | None:
    written = entry.get("handler_path")
    if not isinstance(written, str) or not written or "\0" in written:
        return None  # the schema says so
    return paths.find_handler(written, folder)


def _resolve_root(entry: dict[str, Any], folder: Path, handler: Path) -> str | None:
    written = entry.get("root")
    if isinstance(written, str) and written and "\0" not in written:
        return str(paths.find_root(written, folder, handler))
    root = paths.default_root(handler)
    return None if root is None else str(root)


def _with_paths(
    functions: list[FunctionConfig], resolved: dict[int, dict[str, Any]]
) -> list[FunctionConfig]:
    return [function.model_copy(update=resolved[index]) for index, function in enumerate(functions)]
