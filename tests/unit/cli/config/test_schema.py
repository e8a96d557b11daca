# SPDX-License-Identifier: Apache-2.0
"""The schema for editors: a sound one, and of one mind with ``validate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from aetherless_cli.config.models import Config, FunctionConfig, Orchestrator, Warmup
from aetherless_cli.config.schema import json_schema
from aetherless_cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

ONE: dict[str, Any] = {"id": "a", "handler_path": "a.py", "trigger_port": 8080}


def problems(config: object) -> list[str]:
    """Return what an editor would mark."""
    validator = jsonschema.Draft202012Validator(json_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(config)]


def test_it_is_a_schema() -> None:
    """Of the dialect that it names."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("model", [Config, Orchestrator, FunctionConfig, Warmup])
def test_every_key_is_described(model: type[Config]) -> None:
    """What an editor shows beside a key."""
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_examples_are_valid(repository: Path) -> None:
    """Each configuration of the repository."""
    files = sorted((repository / "examples").glob("*.yaml"))
    assert files
    for file in files:
        assert problems(yaml.safe_load(file.read_text())) == [], file.name


GOOD = [
    {},
    {"environment": {"KEY": "value"}},
    {"warmup": "none"},
    {"warmup": {"path": "/health"}},
    {"mounts": ["/data"], "root": "..", "restore_timeout_ms": 20},
]


@pytest.mark.parametrize("more", GOOD)
def test_what_is_right_is_not_marked(more: dict[str, Any]) -> None:
    """And pydantic agrees."""
    config = {"functions": [{**ONE, **more}]}
    Config.model_validate(config)
    assert problems(config) == []


def test_a_port_may_be_left_out() -> None:
    """Whether there is a channel in its place, only the command knows."""
    entry = {key: value for key, value in ONE.items() if key != "trigger_port"}
    assert problems({"functions": [{**entry, "ipc": True}]}) == []


WRONG = [
    {"trigger_port": 0},
    {"trigger_port": "8080"},
    {"id": "a b"},
    {"warmup": "udp"},
    {"warmup": {"path": "health"}},
    {"environment": {"PORT": "1"}},
    {"environment": {"1KEY": "1"}},
    {"environment": {"KEY": 1}},
    {"mounts": ["data"]},
    {"memory_limit_mb": 0.5},
    {"unknown": 1},
]


@pytest.mark.parametrize("more", WRONG)
def test_what_is_wrong_is_marked(more: dict[str, Any]) -> None:
    """And pydantic agrees."""
    config = {"functions": [{**ONE, **more}]}
    with pytest.raises(ValueError, match="validation error"):
        Config.model_validate(config)
    assert problems(config) != []


@pytest.mark.parametrize("config", [{}, {"functions": []}, [], {"functions": [ONE], "ebpf": {}}])
def test_a_wrong_frame_is_marked(config: object) -> None:
    """At least one function, and no other keys."""
    assert problems(config) != []


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON, unless YAML is asked for."""
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert run(["config", "schema", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == json_schema()
