# SPDX-License-Identifier: Apache-2.0
"""The table of remedies is complete, and the page made from it is current."""

from __future__ import annotations

import importlib
import runpy
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_cli.reasons import BY_DOMAIN, error_of, remedy_for

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = ("registry", "snapshotter", "netplane", "ipc")


@pytest.fixture(scope="module")
def writer(repository: Path) -> dict[str, Any]:
    """Return the names of the script that writes the page."""
    return runpy.run_path(str(repository / "docs" / "errors.py"))


@pytest.mark.parametrize("service", SERVICES)
def test_every_reason_has_its_class_and_a_remedy(service: str, writer: dict[str, Any]) -> None:
    """The class is the one that the contract's comment names."""
    enum = importlib.import_module(f"aetherless.{service}.v1.error_reason_pb2").ErrorReason
    names = {name.removeprefix("ERROR_REASON_") for name in dict(enum.items())} - {"UNSPECIFIED"}
    declared = writer["declared"](service)
    table = BY_DOMAIN[service]
    assert names == set(declared)
    assert {reason: code for reason, (code, _) in declared.items()} == {
        reason: table[reason][0] for reason in declared if reason in table
    }
    assert all(remedy_for(f"{service}.aetherless", reason) for reason in names)


def test_every_reason_of_the_command_line_has_a_meaning(writer: dict[str, Any]) -> None:
    """The page says what each means."""
    assert set(writer["OWN"]) == set(BY_DOMAIN["cli"])


def test_the_page_is_current(repository: Path, writer: dict[str, Any]) -> None:
    """Run ``python docs/errors.py`` when this fails."""
    assert (repository / "docs" / "errors.md").read_text() == writer["page"]()


def test_a_reason_without_code_gets_its_class() -> None:
    """A failed deploy carries only reason and domain."""
    error = error_of("snapshotter.aetherless", "READY_TIMEOUT", "late", {"function": "a"})
    assert (error.code, error.exit_status) == ("DEADLINE_EXCEEDED", 12)
    assert error_of("snapshotter.aetherless", "UNHEARD_OF", "x", {}).code == "INTERNAL"
