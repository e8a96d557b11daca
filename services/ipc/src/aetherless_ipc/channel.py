# SPDX-License-Identifier: Apache-2.0
"""One channel: what was declared of it, and the instances that may attach."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aetherless_ipc.admission import State
from aetherless_ring.layout import Layout

if TYPE_CHECKING:
    from aetherless_ipc.admission import Admission
    from aetherless_ipc.delivery import Delivery
    from aetherless_ipc.generation import Generation


@dataclass(frozen=True, slots=True)
class Declaration:
    """What stays of a channel when the service is started again.

    ``instance`` is the one that calls go to, or nothing. ``timeout_ms`` is for calls whose callers
    name none. ``admissions`` has the folder of each instance that may attach. ``created_ns`` is
    since the epoch.
    """

    channel_id: str
    function_id: str
    ring_bytes: int
    created_ns: int
    timeout_ms: int
    may_call: tuple[str, ...] = ()
    instance: str = ""
    admissions: dict[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, stored: dict[str, Any]) -> Declaration:
        """Return what ``to_plain`` gave.

        Raises:
            TypeError: it is not that.
        """
        made = cls(**stored)
        return dataclasses.replace(made, may_call=tuple(made.may_call))

    def same_as(self, other: Declaration) -> bool:
        """Tell whether two declarations ask for the same properties, apart from the instance."""

        def asked(declared: Declaration) -> tuple[object, ...]:
            size, timeout = declared.ring_bytes, declared.timeout_ms
            return declared.function_id, size, timeout, declared.may_call

        return asked(self) == asked(other)


class Channel:
    """A channel; the broker changes it, with its lock held.

    ``layout`` is that of its next attachment's region.

    Args:
        declaration: what was asked for.
        generation: counts its attachments.
        delivery: gets calls to the instance that is attached.
    """

    def __init__(
        self, declaration: Declaration, generation: Generation, delivery: Delivery
    ) -> None:
        self.declared = declaration
        self.generation = generation
        self.layout = Layout(declaration.ring_bytes)
        self.delivery = delivery
        self.admissions: dict[str, Admission] = {}

    @property
    def channel_id(self) -> str:
        """The channel's id, which is the function's."""
        return self.declared.channel_id

    @property
    def current(self) -> Admission | None:
        """The admission of the instance that calls go to."""
        return self.admissions.get(self.declared.instance)

    def become_declared(self, **changes: object) -> None:
        """Change what is declared."""
        self.declared = dataclasses.replace(self.declared, **changes)  # type: ignore[arg-type]
        self.layout = Layout(self.declared.ring_bytes)

    def lead(self) -> None:
        """Lead calls to where they are to go now."""
        current = self.current
        if current is None or current.state is State.DRAINING:
            self.delivery.become_led_to("", None)
        else:
            self.delivery.become_led_to(current.instance, current.live)

    def note_admissions(self) -> None:
        """Declare those that are admitted, for the next start of the service."""
        folders = {each.instance: str(each.folder) for each in self.admissions.values()}
        self.become_declared(admissions=folders)
