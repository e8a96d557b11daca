# SPDX-License-Identifier: Apache-2.0
"""What shall be and what is of one function, as the plan sees them, and its steps. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aetherless_registry.names import sandbox_owner, snapshot_owner

if TYPE_CHECKING:
    from collections.abc import Mapping


class StepKind(enum.StrEnum):
    """What a step does; the name that users see."""

    CREATE_GOLDEN = "create-golden"
    ATTACH_GOLDEN = "attach-golden"
    CREATE_SNAPSHOT = "create-snapshot"
    DELETE_GOLDEN = "delete-golden"
    CREATE_INSTANCE = "create-instance"
    ATTACH_INSTANCE = "attach-instance"
    TRY_SNAPSHOT = "try-snapshot"
    ARM_INSTANCE = "arm-instance"
    SET_ROUTE = "set-route"
    # Of functions with a channel.
    CREATE_CHANNEL = "create-channel"
    ADMIT_GOLDEN = "admit-golden"
    ADMIT_INSTANCE = "admit-instance"
    SET_CHANNEL = "set-channel"
    # The undoing.
    RESERVE_PORT = "reserve-port"
    DELETE_ROUTE = "delete-route"
    DRAIN_INSTANCE = "drain-instance"
    DETACH_INSTANCE = "detach-instance"
    DELETE_INSTANCE = "delete-instance"
    DELETE_SNAPSHOT = "delete-snapshot"
    DELETE_ROOT = "delete-root"
    DISMISS_INSTANCE = "dismiss-instance"
    DELETE_CHANNEL = "delete-channel"
    # Nothing is asked of another service.
    AWAIT_PORT = "await-port"
    MARK_SERVING = "mark-serving"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing to do for a function."""

    kind: StepKind
    # The revision that it is done for; zero for what belongs to none.
    revision: int = 0
    # The port of a step on a route.
    port: int = 0
    # Of a drain: takes no further request, and ends what is in use still.
    last_call: bool = False
    # The instance that is dismissed.
    instance: str = ""


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """What holds for the calls through a function's channel."""

    timeout_ns: int
    may_call: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What shall be, of one function."""

    function: str
    revision: int
    # The port of ``revision``; zero when it has none.
    port: int
    # The revision that serves, and its port; zero while none does, and when it has none.
    serving_revision: int = 0
    serving_port: int = 0
    # The deploy of ``revision`` failed: it is undone, and what serves goes on.
    failed: bool = False
    # Earlier revisions whose snapshots and files stay, for a rollback.
    kept: frozenset[int] = frozenset()
    deleting: bool = False
    # The snapshot of the target can't be used any more and has to be made anew.
    spoiled: bool = False
    # Instances that are not waited for any longer.
    impatient: frozenset[str] = frozenset()
    # What holds for the target's channel; None when it has none.
    channel: ChannelRules | None = None

    @property
    def target(self) -> int:
        """The revision that shall serve; zero for none."""
        return self.serving_revision if self.failed else self.revision

    @property
    def target_port(self) -> int:
        """The port of the target; zero for none."""
        return self.serving_port if self.failed else self.port

    @property
    def lasting(self) -> frozenset[int]:
        """The revisions that keep their snapshots and files."""
        if self.deleting:
            return frozenset()
        return (self.kept | {self.target, self.serving_revision}) - {0}

    @property
    def repairing(self) -> bool:
        """Whether the target is what serves already, so that a step can only be a repair."""
        return self.target == self.serving_revision


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """An instance as the snapshotter has it; ``state`` is its state's name without prefix."""

    state: str
    netns_path: str


@dataclass(frozen=True, slots=True)
class ObservedRoute:
    """A route as the netplane has it; ``endpoint`` is an id, empty for a port just reserved."""

    function: str
    endpoint: str
    families: int


@dataclass(frozen=True, slots=True)
class ObservedChannel:
    """A channel as the ipc service has it; instances are ids."""

    rules: ChannelRules
    # Where calls go; empty for nowhere yet.
    instance: str = ""
    # Who may attach.
    admitted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is, of one function; of routes, all."""

    instances: Mapping[str, ObservedInstance] = field(default_factory=dict)
    # The network namespace that each endpoint leads to.
    endpoints: Mapping[str, str] = field(default_factory=dict)
    # The address families that each snapshot's handler listens on.
    snapshots: Mapping[str, int] = field(default_factory=dict)
    # The snapshots whose restores were tried.
    tried: frozenset[str] = frozenset()
    # The revisions that have a copy of the function's folder.
    roots: frozenset[int] = frozenset()
    routes: Mapping[int, ObservedRoute] = field(default_factory=dict)
    channel: ObservedChannel | None = None

    def revisions(self) -> set[int]:
        """Return the revisions that anything belongs to."""
        owners = [sandbox_owner(name) for name in (*self.instances, *self.endpoints)]
        owners += [snapshot_owner(name) for name in self.snapshots]
        return {owner.revision for owner in owners if owner} | self.roots
