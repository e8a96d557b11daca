# SPDX-License-Identifier: Apache-2.0
"""A real checkpoint and a real restore of a small program, to know instead of guess.

It goes the whole way of a function, but for the netplane: golden, dump, clone, arming on a link of
its own, wake by command, and a request that the restored process answers.
"""

from __future__ import annotations

import dataclasses
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING

from pyroute2 import IPRoute  # type: ignore[attr-defined]  # it declares no exports
from pyroute2.netlink.exceptions import NetlinkError

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import AetherlessError
from aetherless_snapshotter import criu, errors, files, netns, warmup
from aetherless_snapshotter.golden import SnapshotRun
from aetherless_snapshotter.roots import Roots
from aetherless_snapshotter.sandbox import Endpoint, Sandbox, delete_folder
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_events import RootExited
from aetherless_snapshotter.store import SnapshotStore
from aetherless_snapshotter.workshop import Golden

if TYPE_CHECKING:
    from aetherless_snapshotter.builder import Builder, Built
    from aetherless_snapshotter.sandbox_events import Event

FUNCTION = "host-check"
_PORT = 8080
_SNAPSHOT = "trial"
_TIMEOUT_MS = 20_000
_RESTORE_MS = 5_000
_INNER_IPV4 = "198.18.255.1"
_HANDLER = """\
import os, socket
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), reuse_port=False)
served = 0
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(65536):
            served += 1
            body = str(served).encode()
            head = b"HTTP/1.0 200 %s\\r\\nContent-Length: %d\\r\\n\\r\\n" % (body, len(body))
            connection.sendall(head + body)
"""


class Trial:
    """One trial; everything it makes is its own and is removed at its end."""

    def __init__(self, builder: Builder) -> None:
        self._folder = builder.store.staging(f"{FUNCTION}-{secrets.token_hex(3)}")
        store = SnapshotStore(self._folder / "snapshots", builder.workshop.fingerprint)
        workshop = dataclasses.replace(builder.workshop, store=store)
        # Copies of its own as well: nobody declared them, so the registry would remove them.
        roots = Roots(self._folder / "roots")
        self._builder = dataclasses.replace(builder, workshop=workshop, roots=roots)
        self._let_go = builder.let_go
        self._root_exit: list[RootExited] = []
        self._exited = threading.Event()

    def run(self) -> str:
        """Do the trial; returns one line about the restore.

        Raises:
            AetherlessError: what failed.
            SandboxError: what failed in a sandbox.
        """
        workload = self._workload()
        try:
            self._checkpoint(workload)
            return self._restore(workload)
        finally:
            files.remove_tree(self._folder)
            self._let_go(FUNCTION, [])
            self._builder.logs.remove(FUNCTION)

    def _workload(self) -> instance_pb2.Workload:
        """Write the small program and describe it."""
        source = self._folder / "program"
        source.mkdir(mode=0o700, parents=True)
        handler = source / "handler.py"
        handler.write_text(_HANDLER)
        workload = instance_pb2.Workload(
            function_id=FUNCTION,
            revision=time.time_ns(),
            handler_path=str(handler),
            memory_limit_bytes=128 << 20,
            trigger_port=_PORT,
            warmup=instance_pb2.Warmup(kind=instance_pb2.WARMUP_KIND_HTTP, path="/"),
        )
        workload.timeout.FromMilliseconds(_TIMEOUT_MS)
        workload.restore_timeout.FromMilliseconds(_RESTORE_MS)
        return workload

    def _checkpoint(self, workload: instance_pb2.Workload) -> None:
        """Start the program in a golden's sandbox and dump it."""
        built = self._builder.build(f"{FUNCTION}-golden", workload, "")
        sandbox = self._create(built)
        try:
            golden = Golden(
                sandbox,
                workload,
                built.program,
                built.spec.all_trees(),
                self._exited,
                lambda: self._root_exit[0] if self._root_exit else None,
            )
            for _ in SnapshotRun(_SNAPSHOT, golden, self._builder.workshop).phases():
                pass
        finally:
            sandbox.delete()

    def _restore(self, workload: instance_pb2.Workload) -> str:
        """Restore the dump in a clone's sandbox and ask the restored process."""
        sandbox = self._create(self._builder.build(f"{FUNCTION}-clone", workload, _SNAPSHOT))
        try:
            sandbox.attach_snapshot(self._builder.store.images(_SNAPSHOT))
            link = f"ae{self._builder.settings.orchestrator_id}chk"
            _attach_link(link, sandbox.init_pid)
            sandbox.arm(
                criu.restore_request(),
                port=_PORT,
                deadline_ms=_RESTORE_MS,
                idle_after_ms=0,
                endpoint=Endpoint(link, None, 0, _INNER_IPV4, ""),
            )
            wake = sandbox.wake()
            if wake is None or not wake.ok:
                words = wake.error if wake else "the sandbox says that it runs already"
                cause = criu.cause_of(words, words)
                raise errors.restore_failed(FUNCTION, _SNAPSHOT, cause)
            self._ask(sandbox, workload)
            return f"restored a process in {(wake.answer_ns - wake.sent_ns) / 1e6:.1f} ms"
        finally:
            sandbox.delete()

    def _ask(self, sandbox: Sandbox, workload: instance_pb2.Workload) -> None:
        """Have the restored process answer, and prove that it is the one that was dumped."""
        with netns.TcpTable(sandbox.netns_path) as table:
            listeners = table.listeners(_PORT)
        if not listeners:
            raise errors.restore_failed(FUNCTION, _SNAPSHOT, "nothing listens after the restore")
        until = time.monotonic() + _RESTORE_MS / 1000
        try:
            said = warmup.warm_up(
                sandbox.netns_path, listeners[0], workload.warmup, until, lambda: None
            )
        except warmup.NoAnswerError as error:
            raise errors.restore_failed(FUNCTION, _SNAPSHOT, str(error)) from error
        if " 200 2" not in said:  # the golden's warm-up was the first request
            raise errors.restore_failed(FUNCTION, _SNAPSHOT, f"its memory was lost: {said}")

    def _create(self, built: Built) -> Sandbox:
        """Make a sandbox in a fresh folder."""
        delete_folder(built.spec.folder, built.spec.cgroup)
        return Sandbox.create(built.spec, self._on_event)

    def _on_event(self, event: Event) -> None:
        """Note the end of the program."""
        if isinstance(event, RootExited):
            self._root_exit.append(event)
            self._exited.set()


def _attach_link(name: str, init_pid: int) -> None:
    """Make a link into the sandbox, as the netplane does, with no address on the host's end.

    Raises:
        FailedPrecondition: KERNEL_FEATURE_MISSING.
    """
    peer = {"ifname": "eth0", "net_ns_pid": init_pid}
    try:
        with IPRoute() as host:  # type: ignore[no-untyped-call]
            host.link("add", ifname=name, kind="veth", peer=peer)
            host.link("set", index=socket.if_nametoindex(name), state="up")
    except NetlinkError as error:
        raise errors.kernel_feature_missing(
            "veth", f"a virtual Ethernet link can't be made: {error}", "modprobe veth"
        ) from error


def attempt(builder: Builder) -> tuple[bool, str, str, str]:
    """Do a trial; returns ok, message, remedy and reason."""
    try:
        return True, Trial(builder).run(), "", ""
    except AetherlessError as error:
        return False, error.message, error.remedy or "see the snapshotter's log", error.reason
    except SandboxError as error:
        remedy = "see the snapshotter's log"
        return False, f"{error.step}: {error.detail}", remedy, "SANDBOX_FAILED"
