# SPDX-License-Identifier: Apache-2.0
"""From changes of functions to events: declared, deployed, failed, repaired, deleted.

Changes are numbered and kept, and each event says which change it tells of. So a registry that was
killed between a change and its event records the event when it starts again, and none twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless.registry.v1 import event_pb2, function_pb2
from aetherless_registry import resources, revisions
from aetherless_registry.event_store import EventRecord
from aetherless_registry.store import DEPLOYED, DEPLOYING, FAILED, CompactedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aetherless_registry.events import EventLog
    from aetherless_registry.store import Change, FunctionRecord, Store

NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Deploy:
    """What is under way with a function."""

    began_ns: int
    # Whether anything had to be done.
    stepped: bool = False


class Historian:
    """Reads changes in their order and says what happened. Pure: changes in, events out."""

    def __init__(self) -> None:
        self._before: dict[str, FunctionRecord] = {}
        self._deploys: dict[str, _Deploy] = {}

    def know(self, record: FunctionRecord) -> None:
        """Take over a function as it is, unless it is known better."""
        self._before.setdefault(record.function_id, record)

    def read(self, change: Change) -> list[EventRecord]:
        """Return the events that a change is."""
        record = change.record
        before = self._before.get(record.function_id)
        events = list(self._events(before, change))
        if change.removed:
            self._before.pop(record.function_id, None)
            self._deploys.pop(record.function_id, None)
        else:
            self._before[record.function_id] = record
        return events

    def _events(self, before: FunctionRecord | None, change: Change) -> Iterator[EventRecord]:
        """Compare a function before and after a change."""
        record = change.record
        if change.removed:
            yield _event(change, "DELETED", "it is deleted, with all that served it")
            return
        if before is None and record.create_time_ns != record.update_time_ns:
            return  # what was before it is not kept any more
        if before is None or record.revision != before.revision:
            self._deploys[record.function_id] = _Deploy(record.update_time_ns)
            yield from _declared(before, change)
            return
        deploy = self._follow(before, record)
        lost = before.serving_revision and not record.serving_revision
        if record.deploy_state == FAILED and (before.deploy_state != FAILED or lost):
            yield _failed(before, change)
        if record.deploy_state == DEPLOYED and before.deploy_state == DEPLOYING:
            yield from _deployed(before, change, deploy)

    def _follow(self, before: FunctionRecord, record: FunctionRecord) -> _Deploy:
        """Keep note of when a deploy, or the repair of one, began and whether it took steps."""
        begins = record.deploy_state == DEPLOYING and before.deploy_state != DEPLOYING
        deploy = self._deploys.get(record.function_id)
        if deploy is None or begins:
            deploy = self._deploys[record.function_id] = _Deploy(record.update_time_ns)
        deploy.stepped = deploy.stepped or bool(record.deploy_step)
        return deploy


class History:
    """Keeps the log of events to the changes of functions.

    Args:
        store: where the changes are.
        events: where the events go.
    """

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._historian = Historian()

    def catch_up(self) -> None:
        """Record what an earlier registry did not come to record."""
        told = self._events.last_change()
        for change in self._kept():
            events = self._historian.read(change)
            if change.revision > told and events:
                self._events.add(*events)
        for record in self._store.list()[0]:
            self._historian.know(record)

    def take(self, changes: Sequence[Change]) -> None:
        """Record what changes are, in their order."""
        events = [event for change in changes for event in self._historian.read(change)]
        if events:
            self._events.add(*events)

    def _kept(self) -> Sequence[Change]:
        """Return all changes that are kept."""
        try:
            return self._store.changes(1)
        except CompactedError as error:
            return self._store.changes(error.compact_revision + 1)


def _declared(before: FunctionRecord | None, change: Change) -> Iterator[EventRecord]:
    """Yield what a new declaration is."""
    record = change.record
    spec = resources.decode_spec(record.spec)
    what = "it is declared" if before is None else f"revision {record.revision} is declared"
    reason = "DECLARED"
    if revisions.goes_back(record):
        what, reason = f"it goes back to revision {record.revision}", "ROLLED_BACK"
    where = f"port {spec.trigger_port}" if spec.trigger_port else "by its channel"
    text = f"{what}: {where}, {spec.handler_path}"
    yield _event(change, reason, text, {**_port(spec), "handler": spec.handler_path})


def _port(spec: function_pb2.FunctionSpec) -> dict[str, object]:
    """Return the port of a declaration as metadata; nothing when it has none."""
    return {"port": spec.trigger_port} if spec.trigger_port else {}


def _deployed(before: FunctionRecord, change: Change, deploy: _Deploy) -> Iterator[EventRecord]:
    """Yield what the end of a deploy is: a new revision serves, or the old one again."""
    record = change.record
    took = max(0, record.update_time_ns - deploy.began_ns) // NS_PER_MS
    metadata = {"durationMs": took}
    if record.serving_revision != before.serving_revision:
        spec = resources.decode_spec(record.serving_spec)
        where = f"on port {spec.trigger_port}" if spec.trigger_port else "by its channel"
        text = f"revision {record.revision} serves {where}, after {took} ms"
        yield _event(change, "DEPLOYED", text, {**metadata, **_port(spec)})
    elif deploy.stepped:
        text = f"revision {record.revision} was repaired in {took} ms and serves again"
        yield _event(change, "REPAIRED", text, metadata)


def _failed(before: FunctionRecord, change: Change) -> EventRecord:
    """Return the event of a failed deploy, in the words of the service that failed."""
    record = change.record
    error = function_pb2.DeployError.FromString(record.deploy_error)
    serves = f"revision {record.serving_revision} goes on serving"
    if not record.serving_revision:
        serves = "nothing serves it any more" if before.serving_revision else "nothing serves it"
    metadata = {
        **error.metadata,
        "step": record.deploy_step,
        "errorReason": error.reason,
        "errorDomain": error.domain,
        "servingRevision": record.serving_revision,
    }
    text = f"{record.deploy_step}: {error.reason}: {error.message}; {serves}"
    return _event(change, "DEPLOY_FAILED", text, metadata, event_pb2.EVENT_SEVERITY_WARNING)


def _event(
    change: Change,
    reason: str,
    message: str,
    metadata: Mapping[str, object] | None = None,
    severity: event_pb2.EventSeverity.ValueType = event_pb2.EVENT_SEVERITY_NORMAL,
) -> EventRecord:
    """Return an event that tells of a change."""
    return EventRecord(
        function_id=change.record.function_id,
        time_ns=change.record.update_time_ns,
        reason=reason,
        message=message,
        severity=severity,
        revision=change.record.revision,
        metadata={key: str(value) for key, value in (metadata or {}).items()},
        change=change.revision,
    )
