# SPDX-License-Identifier: Apache-2.0
"""The registry's parts put together, and what it leaves when it is taken down."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import structlog

from aetherless.registry.v1 import registry_service_pb2_grpc
from aetherless_common.errors import Internal
from aetherless_registry.catalog import Catalog
from aetherless_registry.checks import Checks
from aetherless_registry.chronicle import Chronicle
from aetherless_registry.courses import Courses
from aetherless_registry.declarations import Declarations
from aetherless_registry.event_store import EventStoreError
from aetherless_registry.events import WARNING, EventLog
from aetherless_registry.history import History
from aetherless_registry.observer import Observer
from aetherless_registry.operations import Operations
from aetherless_registry.peers import Peers
from aetherless_registry.pipeline_keeper import PipelineKeeper
from aetherless_registry.reconciler import Reconciler
from aetherless_registry.schema import SchemaError
from aetherless_registry.servicer import RegistryServicer
from aetherless_registry.sqlite_events import SqliteEventStore
from aetherless_registry.sqlite_store import SqliteStore
from aetherless_registry.view import View
from aetherless_registry.wakespans import WakeSpans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import grpc

    from aetherless_common.settings import Settings
    from aetherless_registry.store import Change

log = structlog.get_logger()


class RegistryService:
    """One registry.

    Args:
        settings: where its store and the other services are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: _Parts | None = None

    def start(self) -> None:
        """Open the store and begin to make what it says be.

        Raises:
            Internal: a store can't be used.
        """
        store = open_store(self._settings.registry_path)
        try:
            event_store = open_events(self._settings.events_path)
        except BaseException:
            store.close()
            raise
        self._running = _Parts(store, event_store, self._settings)
        self._running.start()

    def register(self, server: grpc.Server) -> None:
        """Add the servicer to the server."""
        if self._running is None:
            raise RuntimeError("register before start")
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
            self._running.servicer, server
        )

    def stop(self) -> None:
        """End watches and threads, and close the store."""
        if self._running is not None:
            self._running.stop()


class _Parts:
    """What a running registry consists of."""

    def __init__(
        self, store: SqliteStore, event_store: SqliteEventStore, settings: Settings
    ) -> None:
        # Whether the registry before this one was killed: at its end it removes its pid file.
        self._unclean = settings.pid_path("registry").exists()
        self._store = store
        self._event_store = event_store
        self._events = EventLog(event_store)
        self._history = History(store, self._events)
        self._peers = Peers(settings)
        view = View()
        self._catalog = Catalog(store, view)
        self._courses = Courses()
        self._catalog.on_changed = self._changed
        self._reconciler = Reconciler(self._catalog, self._peers, view, self._events, self._courses)
        spans = WakeSpans()
        chronicle = Chronicle(self._events, self._catalog, spans)
        self._observer = Observer(
            self._catalog, self._peers, view, self._reconciler, chronicle, spans
        )
        operations = Operations(self._catalog, self._peers, view, self._observer, spans)
        self._pipelines = PipelineKeeper(settings, store)
        declarations = Declarations(
            self._catalog, self._reconciler.declared, self._pipelines.declared
        )
        self._checks = Checks(self._peers, self._reconciler)
        self.servicer = RegistryServicer(
            self._catalog, declarations, operations, self._checks, self._events
        )

    def _changed(self, changes: Sequence[Change]) -> None:
        """Record what changes of functions are: as spans, and as events."""
        self._courses.take(changes)
        self._history.take(changes)

    def start(self) -> None:
        """Record what an earlier registry did not come to, then start the threads."""
        self._history.catch_up()
        self._events.start()
        if self._unclean:
            text = "the registry ended without notice, and is back; what it served went on"
            metadata = {"service": "registry"}
            self._events.record("", "SERVICE_BACK", text, severity=WARNING, metadata=metadata)
        self._reconciler.start()
        self._observer.start()
        self._pipelines.start()

    def stop(self) -> None:
        """End the threads, then let go of what they used."""
        self._catalog.close()
        self._checks.stop()
        self._observer.stop()
        self._pipelines.stop()
        self._reconciler.stop()
        self._courses.close()
        self._peers.close()
        self._events.stop()
        self._store.close()
        self._event_store.close()


def open_store(path: Path) -> SqliteStore:
    """Open the store.

    Raises:
        Internal: the file is damaged, of another version, or can't be opened.
    """
    try:
        return SqliteStore(path)
    except (sqlite3.Error, SchemaError, OSError) as error:
        raise Internal(
            "INTERNAL",
            f"the registry's store {path} can't be used: {error}",
            {"path": path},
            remedy="aetherctl down, move the file away, and deploy again",
        ) from error


def open_events(path: Path) -> SqliteEventStore:
    """Open the store of events.

    Raises:
        Internal: the file is damaged, of another version, or can't be opened.
    """
    try:
        return SqliteEventStore(path)
    except EventStoreError as error:
        raise Internal(
            "INTERNAL",
            f"the registry's events {path} can't be used: {error}",
            {"path": path},
            remedy="aetherctl down, move the file away, and start again",
        ) from error


def cleanup(settings: Settings) -> None:
    """Forget every function, so that the next registry brings none of them back.

    The file stays: revisions go on counting, and a watcher with an old one is told so. So do the
    events: what led to a ``down`` can be read after the next ``up``.
    """
    if settings.registry_path.exists():
        store = open_store(settings.registry_path)
        store.clear()
        store.close()


def purge(settings: Settings) -> None:
    """Remove the store's files."""
    for name in store_files(settings):
        name.unlink(missing_ok=True)


def store_files(settings: Settings) -> Sequence[Path]:
    """Return the files that SQLite keeps."""
    paths = (settings.registry_path, settings.events_path)
    return [path.with_name(path.name + end) for path in paths for end in ("", "-wal", "-shm")]
