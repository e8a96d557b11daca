# SPDX-License-Identifier: Apache-2.0
"""Orchestrators that must leave the host as it was, also when their test fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .hoststate import HostState
from .mesh import Function, Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def unchanged_host() -> Iterator[HostState]:
    """Compare the host at the block's end with the host at its beginning.

    Orchestrators that were up before the block and still are may change their own objects.

    Raises:
        AssertionError: with a diff, when something else differs.
    """
    state = HostState()
    try:
        yield state
    finally:
        state.marks = list(Orchestrator.all_marks)
        state.verify(Orchestrator.living_marks())


@contextlib.contextmanager
def orchestrator(*functions: Function, **settings: Any) -> Iterator[Orchestrator]:
    """Run a block with an orchestrator that is up, and compare the host after it is down."""
    with unchanged_host(), Orchestrator(functions, **settings) as running:
        yield running.up()
