# SPDX-License-Identifier: Apache-2.0
"""Every functional test ends with the comparison of the host, also when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from framework.guard import unchanged_host
from framework.mesh import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder: it needs root, and drives whole orchestrators."""
    for item in items:
        if "functional" in item.path.parts:
            item.add_marker(pytest.mark.functional)
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_the_host() -> Iterator[None]:
    """Compare the host around a module, with the orchestrators that its tests share."""
    with unchanged_host():
        yield


@pytest.fixture(autouse=True)
def _test_leaves_the_host(
    _module_leaves_the_host: None, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Compare the host around each test.

    Where a module's tests share a world of namespaces and servers, which grows test by test, the
    comparison around the module speaks for them all.
    """
    if getattr(request.module, "SHARES_A_WORLD", False):
        yield
        return
    with unchanged_host():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the orchestrators that are up to the report of a failed test."""
    report = yield
    if report.failed:
        for orchestrator in Orchestrator.living:
            report.sections.append((f"logs of {orchestrator.id}", orchestrator.logs()))
    return report
