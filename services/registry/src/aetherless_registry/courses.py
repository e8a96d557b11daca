# SPDX-License-Identifier: Apache-2.0
"""What functions are going through, as spans: a deploy, a repair, a deletion.

A declaration returns at once and the steps come later, in other threads; so each course remembers
the span of the call that began it, and the steps are recorded within the course.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError, Internal
from aetherless_registry import revisions
from aetherless_registry.store import DEPLOYING, FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aetherless_registry.desired import Step
    from aetherless_registry.store import Change, FunctionRecord


class Courses:
    """The newest course of each function. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[str, FunctionRecord] = {}
        self._spans: dict[str, tracing.Span] = {}

    def take(self, changes: Sequence[Change]) -> None:
        """Begin and end courses as changes of functions say, in the span of who makes them."""
        with self._lock:
            for change in changes:
                self._take(change)

    def of(self, function_id: str) -> tracing.Span:
        """Return a function's course, also when it has ended: what is left to do belongs to it."""
        with self._lock:
            return self._spans.get(function_id, tracing.NOBODY)

    def close(self) -> None:
        """End what is under way; another registry goes on with it, as a course of its own."""
        with self._lock:
            for span in self._spans.values():
                span.end()

    @contextmanager
    def step(self, record: FunctionRecord | None, function_id: str, step: Step) -> Iterator[None]:
        """Record the block as a step of a function's course; cut short, it has not failed."""
        parent = self._resumed(record) if record else self.of(function_id)
        attributes = _attributes(function_id, step.revision)
        span = tracing.begin(step.kind.value, attributes=attributes, parent=parent)
        try:
            with tracing.use(span):
                yield
        except AetherlessError as error:
            span.fail(error)
            raise
        finally:
            span.end()

    def _resumed(self, record: FunctionRecord) -> tracing.Span:
        """Return a function's course; one that an earlier registry began is begun again."""
        with self._lock:
            if record.function_id not in self._spans:
                self._begin(record, resumed=True)
            return self._spans[record.function_id]

    def _take(self, change: Change) -> None:
        """Follow one change."""
        record = change.record
        before = self._before.get(record.function_id)
        if _begins(before, record):
            new = record.create_time_ns == record.update_time_ns
            self._begin(record, resumed=before is None and not new)
        if record.deploy_state == FAILED and (before is None or before.deploy_state != FAILED):
            self._spans.get(record.function_id, tracing.NOBODY).fail(_error(record))
        if change.removed or (record.deploy_state != DEPLOYING and not record.deleting):
            self._end(record.function_id)
        self._before[record.function_id] = record
        if change.removed:
            del self._before[record.function_id]
            self._spans.pop(record.function_id, None)

    def _begin(self, record: FunctionRecord, *, resumed: bool) -> None:
        """Begin a course within the span that goes on in this thread; end the one before.

        What begins while that one is worked on, such as a repair, is no part of it.
        """
        before = self._spans.get(record.function_id, tracing.NOBODY)
        before.end()
        cause = tracing.current()
        parent = tracing.NOBODY if cause is before else cause
        attributes = _attributes(record.function_id, record.revision)
        span = tracing.begin(_name(record), attributes=attributes, parent=parent)
        if resumed:
            span.set({"aetherless.resumed": True})
        self._spans[record.function_id] = span

    def _end(self, function_id: str) -> None:
        """End a function's course, if one is under way."""
        self._spans.get(function_id, tracing.NOBODY).end()


def _attributes(function_id: str, revision: int) -> tracing.Attributes:
    """Return what a course or a step is about."""
    return {"aetherless.function": function_id, "aetherless.revision": revision}


def _begins(before: FunctionRecord | None, record: FunctionRecord) -> bool:
    """Tell whether a change is the beginning of a course."""
    if before is None:
        return record.deploy_state == DEPLOYING or record.deleting
    if record.deleting != before.deleting:
        return record.deleting
    begins = record.deploy_state == DEPLOYING and before.deploy_state != DEPLOYING
    return begins or record.revision != before.revision


def _name(record: FunctionRecord) -> str:
    """Return what a course is."""
    if record.deleting:
        return "delete"
    if record.revision == record.serving_revision:
        return "repair"
    return "rollback" if revisions.goes_back(record) else "deploy"


def _error(record: FunctionRecord) -> AetherlessError:
    """Return why a deploy failed, in the words of the service that failed."""
    told = function_pb2.DeployError.FromString(record.deploy_error)
    metadata = {**told.metadata, "step": record.deploy_step}
    return Internal(told.reason, told.message, metadata, domain=told.domain)
