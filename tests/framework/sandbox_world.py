# SPDX-License-Identifier: Apache-2.0
"""Sandboxes without the service around them: made, dumped, restored and asked in one process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_snapshotter import criu, files, images, netns
from aetherless_snapshotter.__main__ import _builder
from aetherless_snapshotter.golden import SnapshotRun
from aetherless_snapshotter.inspection import Found
from aetherless_snapshotter.sandbox import Endpoint, Sandbox, delete_all
from aetherless_snapshotter.sandbox_events import RootExited
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET
from aetherless_snapshotter.workshop import Golden
from framework.snapshotter_world import INNER_IPV4, PORT, WAIT, World, make_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.builder import Builder
    from aetherless_snapshotter.sandbox_events import Event

T = TypeVar("T")
E = TypeVar("E")
SNAPSHOT = "snapshot"
PATH = {"PATH": "/usr/bin:/bin"}


@dataclass
class Events:
    """The events of one sandbox, in their order."""

    seen: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Event) -> None:
        """Note an event."""
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a kind so far."""
        return [event for event in self.seen if isinstance(event, kind)]

    def wait(self, kind: type[E], count: int = 1) -> E:
        """Wait for the ``count``-th event of a kind and return it."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.of(kind)) >= count, WAIT)
        assert came, f"no {kind.__name__} number {count}: {self.seen}"
        return self.of(kind)[count - 1]


@dataclass
class SandboxWorld:
    """Makes sandboxes of one orchestrator, whose host's ends of links are in ``place``."""

    place: World
    builder: Builder

    def create(
        self, name: str, workload: instance_pb2.Workload, snapshot: str = ""
    ) -> tuple[Sandbox, Events]:
        """Make a sandbox: a golden's, or the clone of a snapshot."""
        events = Events()
        built = self.builder.build(name, workload, snapshot)
        sandbox = Sandbox.create(built.spec, events.take)
        if snapshot:
            sandbox.attach_snapshot(self.builder.store.images(snapshot))
        return sandbox, events

    def checkpoint(
        self,
        workload: instance_pb2.Workload,
        after: Callable[[str, Sandbox], None] = lambda _phase, _golden: None,
    ) -> None:
        """Start the handler in a golden, dump it, and delete the golden.

        ``after`` is called when a phase is done, with its name and the golden.
        """
        built = self.builder.build("golden", workload, "")
        events = Events()
        sandbox = Sandbox.create(built.spec, events.take)
        exited = threading.Event()
        try:
            self.place.link("golden", sandbox.init_pid)
            golden = Golden(
                sandbox,
                workload,
                built.program,
                built.spec.all_trees(),
                exited,
                lambda: next(iter(events.of(RootExited)), None),
            )
            for step in SnapshotRun(SNAPSHOT, golden, self.builder.workshop).phases():
                if isinstance(step, Found):
                    continue
                if step.state == snapshot_pb2.PHASE_STATE_DONE:
                    after(step.name, sandbox)
        finally:
            sandbox.delete()

    def clone(
        self,
        workload: instance_pb2.Workload,
        *,
        deadline_ms: int = 5000,
        idle_after_ms: int = 0,
        images_dir: str = SNAPSHOT_TARGET,
    ) -> tuple[Sandbox, Events]:
        """Make an armed clone of the dumped handler."""
        sandbox, events = self.create("clone", workload, SNAPSHOT)
        link = self.place.link("clone0", sandbox.init_pid)
        # as the netplane does; a reset that no socket sends finds no other way
        self.place.ip(f"route replace {INNER_IPV4}/32 dev {link}")
        self.inside(
            lambda: sandbox.arm(
                criu.restore_request(images_dir),
                port=PORT,
                deadline_ms=deadline_ms,
                idle_after_ms=idle_after_ms,
                endpoint=Endpoint(link, None, 0, INNER_IPV4, ""),
            )
        )
        return sandbox, events

    def inside(self, work: Callable[[], T]) -> T:
        """Do something on a thread in the namespace of the hosts' ends of the links."""
        results: list[T] = []
        failures: list[Exception] = []

        def run() -> None:
            try:
                netns._enter(self.place.namespace)
                results.append(work())
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def burst(self, clients: int) -> list[tuple[int, bytes, int]]:
        """Have clients ask all at once; returns what each got, and its retransmissions."""
        answers: list[tuple[int, bytes, int]] = []
        ready = threading.Barrier(clients)

        def ask() -> None:
            with self.place.client() as client:
                ready.wait(WAIT)
                answers.append(get(client))

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


def get(client: socket.socket, path: str = "/") -> tuple[int, bytes, int]:
    """Get a page; returns status, body and how often the client sent anything again."""
    client.connect((INNER_IPV4, PORT))
    client.sendall(f"GET {path} HTTP/1.0\r\nHost: f\r\n\r\n".encode())
    received = b""
    while block := client.recv(65536):
        received += block
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body, int.from_bytes(info[100:104], sys.byteorder)


def evict(sandbox: Sandbox) -> None:
    """Evict once the last client's connection has closed."""
    until = time.monotonic() + WAIT
    with netns.TcpTable(sandbox.netns_path) as table:
        while table.connections(PORT) and time.monotonic() < until:
            time.sleep(0.01)
    sandbox.evict()


@contextmanager
def _namespace() -> Iterator[Path]:
    """Give a network namespace for the hosts' ends of the links."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.stdin.close()


@contextmanager
def sandbox_world(folder: Path) -> Iterator[SandboxWorld]:
    """Give a place for sandboxes; in the end nothing of it is left."""
    settings = make_settings(folder)
    images.load_modules(settings.prefix)
    with _namespace() as host:
        try:
            yield SandboxWorld(World(settings, host), _builder(settings))
        finally:
            delete_all(settings.runtime_dir, settings.cgroup_name)
            files.remove_tree(settings.snapshot_dir)


def run(sandbox: Sandbox, events: Events, script: str) -> int:
    """Run a shell script as the golden program; returns its status."""
    count = len(events.of(RootExited))
    sandbox.spawn(["/bin/sh", "-c", script], PATH, "/")
    return events.wait(RootExited, count + 1).code
