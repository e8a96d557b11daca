# SPDX-License-Identifier: Apache-2.0
"""The registry's events as ``aetherctl events`` reads them: the newest, then what comes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import event_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import errors
from aetherless_cli.client import PAGE, Mesh, function_name
from aetherless_cli.following import followed
from aetherless_common.errors import AetherlessError, OutOfRange, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from aetherless_cli.event_view import EventView

RETRY_PAUSE = 0.2  # seconds
# Events are numbered as they are written, up to a few seconds after they happened.
DISORDER_NS = 60 * 10**9


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for."""

    function_id: str
    warnings: bool

    def filters(self) -> dict[str, Any]:
        """Return them as a request's fields."""
        worst = event_pb2.EVENT_SEVERITY_WARNING
        return {
            "function": function_name(self.function_id) if self.function_id else "",
            "min_severity": worst if self.warnings else event_pb2.EVENT_SEVERITY_UNSPECIFIED,
        }


def list_events(
    mesh: Mesh, wanted: Wanted, count: int | None, oldest_ns: int
) -> tuple[list[event_pb2.Event], int]:
    """Return the newest events, the oldest of them first, and the newest event's number of all.

    Args:
        mesh: the services.
        wanted: which events.
        count: how many at most; None for all that are kept.
        oldest_ns: none that happened before this time, in nanoseconds since the epoch.
    """
    request = messages.ListEventsRequest(newest_first=True, page_size=PAGE, **wanted.filters())
    found: list[event_pb2.Event] = []
    last = None
    while True:
        answer = mesh.registry.ListEvents(request)
        # What comes while the pages are read is the watch's to tell.
        last = answer.last_sequence if last is None else last
        found += [each for each in answer.events if each.time.ToNanoseconds() >= oldest_ns]
        enough = count is not None and len(found) >= count
        past = bool(answer.events) and (
            answer.events[-1].time.ToNanoseconds() < oldest_ns - DISORDER_NS
        )
        if enough or past or not answer.next_page_token:
            return found[:count][::-1], last
        request.page_token = answer.next_page_token


def follow_events(mesh: Mesh, wanted: Wanted, start: int, view: EventView) -> None:
    """Show events from a number on until Ctrl-C, also over restarts of the registry.

    Raises:
        Aborted: TAKEN_DOWN, the orchestrator is gone.
        AetherlessError: the registry refuses.
    """
    follower = _Follower(mesh, wanted, start, view)
    try:
        while True:
            follower.read()
            time.sleep(RETRY_PAUSE)
    except KeyboardInterrupt:
        view.end()  # the usual end of following


class _Follower:
    """A watch that is begun again where it ended."""

    def __init__(self, mesh: Mesh, wanted: Wanted, start: int, view: EventView) -> None:
        self._mesh = mesh
        self._wanted = wanted
        self._start = start
        self._view = view
        self._away = False

    def read(self) -> None:
        """Show what a watch tells until it ends; note what it takes to begin the next one."""
        try:
            # From 1 on when there are none yet: 0 would leave out one that comes just now.
            request = messages.WatchEventsRequest(
                start_sequence=max(self._start, 1), **self._wanted.filters()
            )
            with followed(lambda: self._mesh.registry.WatchEvents(request)) as responses:
                for response in responses:
                    self._take(response)
        except AetherlessError as error:
            self._bear(error)

    def _take(self, response: messages.WatchEventsResponse) -> None:
        """Show events, and remember where to go on."""
        if self._away:
            self._view.note("the registry is back")
            self._away = False
        for event in response.events:
            self._view.show(event)
        self._start = max(self._start, response.sequence + 1)

    def _bear(self, error: AetherlessError) -> None:
        """Go on after what passes; raise the rest."""
        if not self._mesh.settings.runtime_dir.exists():
            raise errors.taken_down() from error
        if isinstance(error, OutOfRange):
            gone = int(error.metadata["compactRevision"])
            self._view.note(f"events up to number {gone} are not kept any more; some are not shown")
            self._start = gone + 1
        elif isinstance(error, Unavailable):
            if not self._away:
                self._view.note("the registry is away; functions go on")
            self._away = True
        elif not isinstance(error, ResourceExhausted):  # too slow: what it missed is still kept
            raise error
