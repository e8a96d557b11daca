# SPDX-License-Identifier: Apache-2.0
"""From changes of functions to events, also when a registry died in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_registry.catalog import Catalog
from aetherless_registry.declarations import Declarations
from aetherless_registry.event_store import EventQuery, EventRecord
from aetherless_registry.events import WARNING, EventLog
from aetherless_registry.history import History
from aetherless_registry.memory_events import MemoryEventStore
from aetherless_registry.memory_store import MemoryStore
from aetherless_registry.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aetherless_registry.store import Change

    Spec = Callable[..., function_pb2.FunctionSpec]

MS = 10**6


class World:
    """A catalog with a history, on a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 10**18
        self.store = MemoryStore()
        self.event_store = MemoryEventStore()
        self.begin()

    def begin(self) -> None:
        """Begin as a new registry does."""
        self.log = EventLog(self.event_store, clock=lambda: self.now)
        self.history = History(self.store, self.log)
        self.history.catch_up()
        self.catalog = Catalog(self.store, View(), clock=lambda: self.now)
        self.catalog.on_changed = self.history.take
        self.declarations = Declarations(self.catalog, lambda _: None)

    def apply(self, spec: function_pb2.FunctionSpec) -> None:
        """Declare a function."""
        self.declarations.apply(registry_service_pb2.ApplyConfigRequest(functions=[spec]))

    def deploy(self, revision: int, ms: int = 50) -> None:
        """Take a step, and be done."""
        self.catalog.enter_step("hello", revision, "create-golden")
        self.now += ms * MS
        self.catalog.complete_deploy("hello", revision)

    def events(self) -> Sequence[EventRecord]:
        """Return all events."""
        return self.event_store.read(EventQuery())

    def reasons(self) -> list[str]:
        """Return what happened."""
        return [each.reason for each in self.events()]


@pytest.fixture
def world() -> World:
    """Give an empty world."""
    return World()


def test_a_deploy_is_declared_and_deployed(world: World, spec: Spec) -> None:
    """With the revision, the port and how long it took; steps are no events."""
    world.apply(spec())
    world.deploy(1, ms=120)
    declared, deployed = world.events()
    assert (declared.reason, declared.metadata["port"]) == ("DECLARED", "8080")
    assert (deployed.reason, deployed.revision) == ("DEPLOYED", 1)
    assert deployed.metadata == {"durationMs": "120", "port": "8080"}
    assert deployed.time_ns == world.now


def test_a_failure_has_the_words_of_the_service_that_failed(world: World, spec: Spec) -> None:
    """Its reason, its metadata, the step, and what serves now."""
    world.apply(spec())
    world.deploy(1)
    world.apply(spec(memory_limit_mb=64))
    error = FailedPrecondition("HANDLER_EXITED", "it ended", {"status": 3}, domain="s.aetherless")
    world.catalog.fail_deploy("hello", 2, "create-snapshot", error, lost=False)
    failed = world.events()[-1]
    assert (failed.reason, failed.severity, failed.revision) == ("DEPLOY_FAILED", WARNING, 2)
    assert failed.metadata == {
        "status": "3",
        "step": "create-snapshot",
        "errorReason": "HANDLER_EXITED",
        "errorDomain": "s.aetherless",
        "servingRevision": "1",
    }
    assert failed.message == (
        "create-snapshot: HANDLER_EXITED: it ended; revision 1 goes on serving"
    )


def test_a_repair_is_an_event_only_when_something_was_done(world: World, spec: Spec) -> None:
    """A function that was merely looked at again is none."""
    world.apply(spec())
    world.deploy(1)
    world.deploy(1, ms=7)
    assert world.reasons() == ["DECLARED", "DEPLOYED", "REPAIRED"]
    assert world.events()[-1].metadata == {"durationMs": "7"}
    world.catalog.update(world.catalog.get("hello"), deploy_state="DEPLOYING")
    world.catalog.complete_deploy("hello", 1)
    assert len(world.events()) == 3


def test_a_repair_that_fails_is_one_too(world: World, spec: Spec) -> None:
    """Also when the newest deploy had failed before."""
    world.apply(spec())
    world.deploy(1)
    error = FailedPrecondition("RESTORE_FAILED", "no", domain="s.aetherless")
    world.apply(spec(memory_limit_mb=64))
    world.catalog.fail_deploy("hello", 2, "create-snapshot", error, lost=False)
    world.catalog.fail_deploy("hello", 2, "create-instance", error, lost=True)
    assert world.reasons()[-2:] == ["DEPLOY_FAILED", "DEPLOY_FAILED"]
    assert world.events()[-1].message.endswith("nothing serves it any more")


def test_a_rollback_is_asked_for_and_deployed(world: World, spec: Spec) -> None:
    """The revision that is gone back to is named in both."""
    world.apply(spec())
    world.deploy(1)
    world.apply(spec(memory_limit_mb=64))
    world.deploy(2)
    request = registry_service_pb2.RollbackFunctionRequest(name="functions/hello")
    world.declarations.roll_back(request)
    world.deploy(1, ms=9)
    back, deployed = world.events()[-2:]
    assert (back.reason, back.revision) == ("ROLLED_BACK", 1)
    assert (deployed.reason, deployed.revision) == ("DEPLOYED", 1)
    assert deployed.metadata["durationMs"] == "9"


def test_a_deletion_is_an_event_when_nothing_is_left(world: World, spec: Spec) -> None:
    """Not when it is wished."""
    world.apply(spec())
    world.declarations.delete("hello")
    assert world.reasons() == ["DECLARED"]
    world.catalog.forget("hello")
    assert world.reasons() == ["DECLARED", "DELETED"]


def test_each_event_is_recorded_once_whenever_the_registry_dies(world: World, spec: Spec) -> None:
    """What was changed and not told is told by the next one; what was told is not."""

    def die(_: Sequence[Change]) -> None:
        raise SystemExit

    world.apply(spec())
    world.catalog.enter_step("hello", 1, "create-golden")
    world.now += 30 * MS
    world.catalog.on_changed = die
    with pytest.raises(SystemExit):
        world.catalog.complete_deploy("hello", 1)
    assert world.reasons() == ["DECLARED"]
    world.begin()
    assert world.reasons() == ["DECLARED", "DEPLOYED"]
    assert world.events()[-1].metadata["durationMs"] == "30"
    world.begin()
    assert world.reasons() == ["DECLARED", "DEPLOYED"]


def test_changes_that_are_cut_off_are_no_hindrance(world: World, spec: Spec) -> None:
    """What a function was is known from what it is, and nothing is made up."""
    world.apply(spec())
    world.deploy(1)
    world.store.compact(world.store.revision())
    world.begin()
    world.deploy(1, ms=5)
    world.store.compact(world.store.revision() - 1)
    world.begin()
    assert world.reasons() == ["DECLARED", "DEPLOYED", "REPAIRED"]
