# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002  # RPCs are named by the contract, and gRPC gives each a context
"""The RPCs on events: decode, one call of the log, encode."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from aetherless.registry.v1 import event_pb2, registry_service_pb2, registry_service_pb2_grpc
from aetherless_common import pagination
from aetherless_registry import errors, names
from aetherless_registry.event_store import EventQuery
from aetherless_registry.resources import function_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import grpc

    from aetherless_common.watch import Subscription
    from aetherless_registry.event_store import EventRecord
    from aetherless_registry.events import EventLog

WATCH_QUEUE = 1024
MARK_S = 10.0
# Events in one response.
BATCH = 100
# What a page token says of the list it belongs to.
_OLDEST_FIRST, _NEWEST_FIRST = "o", "n"
_TOKEN_NUMBER = re.compile(r"[0-9]{1,18}")


class EventRpcs(registry_service_pb2_grpc.RegistryServiceServicer):
    """The part of the registry's servicer that is about events.

    Args:
        events: the log.
        mark_s: how often a watcher is told where it is while nothing happens, in seconds.
        watch_queue: how many events may wait for a watcher.
    """

    def __init__(
        self, events: EventLog, mark_s: float = MARK_S, watch_queue: int = WATCH_QUEUE
    ) -> None:
        self._events = events
        self._events_mark_s = mark_s
        self._events_queue = watch_queue

    def ListEvents(
        self,
        request: registry_service_pb2.ListEventsRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.ListEventsResponse:
        """List events."""
        size = pagination.size_of(request.page_size)
        query = _query(request, size + 1)
        found, last = self._events.read(query)
        page, more = found[:size], len(found) > size
        order = _NEWEST_FIRST if request.newest_first else _OLDEST_FIRST
        token = pagination.encode_token(f"{order}{page[-1].sequence}") if more else ""
        return registry_service_pb2.ListEventsResponse(
            events=[message(each) for each in page], next_page_token=token, last_sequence=last
        )

    def WatchEvents(
        self,
        request: registry_service_pb2.WatchEventsRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[registry_service_pb2.WatchEventsResponse]:
        """Stream events from a number on."""
        if request.start_sequence < 0:
            raise errors.invalid_argument("start_sequence", "must not be negative")
        wanted = EventQuery(
            function_id=_filtered(request.function),
            min_severity=request.min_severity,
        )
        subscription, past, last = self._events.watch(request.start_sequence, self._events_queue)
        with subscription:
            context.add_callback(subscription.close)
            yield from _caught_up(past, wanted, last)
            yield from self._live_events(subscription, wanted, request.start_sequence, last)

    def _live_events(
        self, subscription: Subscription[EventRecord], wanted: EventQuery, start: int, last: int
    ) -> Iterator[registry_service_pb2.WatchEventsResponse]:
        """Yield events as they come, and marks while none does."""
        mark_at = time.monotonic() + self._events_mark_s
        while True:
            event = subscription.get(max(0.0, mark_at - time.monotonic()))
            if event is None and subscription.closed:
                return
            if event is None:
                yield registry_service_pb2.WatchEventsResponse(sequence=last)
                mark_at = time.monotonic() + self._events_mark_s
                continue
            last = event.sequence
            if last >= start and _is_wanted(event, wanted):
                yield registry_service_pb2.WatchEventsResponse(
                    events=[message(event)], sequence=last
                )


def message(event: EventRecord) -> event_pb2.Event:
    """Return an event as its contract has it."""
    made = event_pb2.Event(
        name=f"events/{event.sequence}",
        sequence=event.sequence,
        function=names.FUNCTIONS + event.function_id if event.function_id else "",
        revision=event.revision,
        severity=event.severity,
        reason=event.reason,
        message=event.message,
        metadata=event.metadata,
        trace_id=event.trace_id,
    )
    made.time.FromNanoseconds(event.time_ns)
    return made


def _query(request: registry_service_pb2.ListEventsRequest, limit: int) -> EventQuery:
    """Return what a list asks for."""
    after, before = 0, None
    if request.page_token:
        told = pagination.decode_token(request.page_token)
        order, number = told[:1], told[1:]
        wanted = _NEWEST_FIRST if request.newest_first else _OLDEST_FIRST
        if order != wanted or not _TOKEN_NUMBER.fullmatch(number):
            raise errors.invalid_argument("page_token", "is not a token of this list")
        after, before = (0, int(number)) if request.newest_first else (int(number), None)
    return EventQuery(
        function_id=_filtered(request.function),
        min_severity=request.min_severity,
        after=after,
        before=before,
        newest_first=request.newest_first,
        limit=limit,
    )


def _caught_up(
    past: Sequence[EventRecord], wanted: EventQuery, last: int
) -> Iterator[registry_service_pb2.WatchEventsResponse]:
    """Yield what happened before the watch began; at least one response, so that it is known."""
    events = [each for each in past if _is_wanted(each, wanted)]
    for start in range(0, max(len(events), 1), BATCH):
        batch = events[start : start + BATCH]
        # Only the last response may say that everything up to the newest event was told.
        at = last if start + BATCH >= len(events) else batch[-1].sequence
        yield registry_service_pb2.WatchEventsResponse(
            events=[message(each) for each in batch], sequence=at
        )


def _filtered(function: str) -> str:
    """Return the id of the function that a request wants events of; empty for all."""
    return function_id_of(function, "function") if function else ""


def _is_wanted(event: EventRecord, wanted: EventQuery) -> bool:
    """Tell whether a watcher asked for this."""
    of_function = wanted.function_id in {"", event.function_id}
    return of_function and event.severity >= wanted.min_severity
