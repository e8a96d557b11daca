# SPDX-License-Identifier: Apache-2.0
"""Keeps the four services alive where systemd does not: ``python -m aetherless_cli.supervisor``.

A process in a session of its own that never imports gRPC (it forks). It starts each service,
restarts one that ends, with a growing pause, adopts one that an earlier supervisor left alive, and
ends all of them on SIGTERM. What the services made, sandboxes above all, it leaves alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aetherless_common.logfiles import MAX_LOG_BYTES, rotate
from aetherless_common.proc import ProcessRef
from aetherless_common.settings import SERVICES, Settings, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

FIRST_PAUSE = 0.2  # seconds before the first restart; doubles up to LONGEST_PAUSE
LONGEST_PAUSE = 5.0
STEADY_AFTER = 10.0  # a service that ran this long begins with FIRST_PAUSE again
GRACE = 10.0  # seconds that a service has to end after SIGTERM
LOOK_EVERY = 5.0  # seconds between looks at the logs' sizes
ALREADY_RUNNING = 3


@dataclass
class Child:
    """One service, as the supervisor sees it."""

    service: str
    process: ProcessRef | None = None
    popen: subprocess.Popen[bytes] | None = None
    descriptor: int = -1
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    restarts: int = 0
    last_exit: str = ""


@dataclass
class Supervisor:
    """Watches the services by pidfd and the signals by a pipe."""

    settings: Settings
    children: list[Child] = field(default_factory=lambda: [Child(name) for name in SERVICES])
    stopping: bool = False

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT, then end the services."""
        wake = self._catch_signals()
        while not self.stopping:
            self._start_what_is_due()
            self._cut_logs()
            watched = {c.descriptor: c for c in self.children if c.descriptor >= 0}
            ready, _, _ = select.select([wake, *watched], [], [], self._until_next_turn())
            for descriptor in ready:
                if descriptor in watched:
                    self._ended(watched[descriptor])
            if wake in ready:
                os.read(wake, 64)
        self._end_services()

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return reader

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _until_next_turn(self) -> float:
        waits = [c.due - time.monotonic() for c in self.children if c.process is None]
        return max(0.0, min([LOOK_EVERY, *waits]))

    def _cut_logs(self) -> None:
        """Keep the services' logs, and the supervisor's own, below their size."""
        for name in ("supervisor", *SERVICES):
            try:
                rotate(self.settings.log_path(name), MAX_LOG_BYTES)
            except OSError as error:
                log(f"the log of {name} can't be cut: {error}")

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child.due <= now:
                self._start(child)

    def _start(self, child: Child) -> None:
        """Adopt the service if it lives, else start it."""
        child.started = time.monotonic()
        alive = ProcessRef.read(self.settings.pid_path(child.service))
        try:
            if alive is None or not alive.alive():
                child.popen = start_service(self.settings, child.service)
                alive = ProcessRef.of(child.popen.pid)
            # SAFETY: a pid of our own child or one whose start time was just compared.
            child.descriptor = os.pidfd_open(alive.pid)
        except ProcessLookupError:
            self._ended(child)  # so soon
            return
        child.process = alive
        self._publish()

    def _ended(self, child: Child) -> None:
        if child.descriptor >= 0:
            os.close(child.descriptor)
        status = child.popen.wait() if child.popen else None
        if time.monotonic() - child.started > STEADY_AFTER:
            child.pause = FIRST_PAUSE
        child.last_exit = _in_words(status)
        log(f"{child.service} ended ({child.last_exit}); next start in {child.pause:.1f} s")
        child.process, child.popen, child.descriptor = None, None, -1
        child.due = time.monotonic() + child.pause
        child.pause = min(child.pause * 2, LONGEST_PAUSE)
        child.restarts += 1
        self._publish()

    def _publish(self) -> None:
        """Let ``aetherctl up`` see which services do not stay up."""
        state = {
            child.service: {
                "pid": child.process.pid if child.process else 0,
                "restarts": child.restarts,
                "last_exit": child.last_exit,
            }
            for child in self.children
        }
        write_atomically(status_path(self.settings), json.dumps(state) + "\n")

    def _end_services(self) -> None:
        living = [child.process for child in self.children if child.process]
        for process in living:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in living:
            if not process.wait(max(0.0, deadline - time.monotonic())):
                log(f"process {process.pid} did not end in time and is killed")
                process.signal(signal.SIGKILL)
                process.wait(GRACE)


def status_path(settings: Settings) -> Path:
    """Return the file in which the supervisor says how the services do."""
    return settings.runtime_dir / "supervisor.json"


def start_service(settings: Settings, service: str) -> subprocess.Popen[bytes]:
    """Start one service in a session of its own, its output appended to its log."""
    path = settings.log_path(service)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("ab") as log_file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", f"aetherless_{service}"],
            cwd="/",
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which a service finds these settings."""
    return {
        **os.environ,
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
        "AETHER_PREFIX": str(settings.prefix),
    }


def log(text: str) -> None:
    """Write one line to the supervisor's log, which is its standard error."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, file=sys.stderr, flush=True)


def _in_words(status: int | None) -> str:
    if status is None:
        return "adopted, status unknown"
    return f"signal {-status}" if status < 0 else f"status {status}"


def main() -> int:
    """Leave a supervisor running in the background; return once it has its pid file."""
    settings = Settings.load()
    settings.make_folders()
    lock = os.open(settings.lock_path("supervisor"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY_RUNNING
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) else 1
    os.close(reader)
    _supervise(settings, writer)
    return 0


def _supervise(settings: Settings, ready: int) -> None:
    ProcessRef.of(os.getpid()).write(settings.pid_path("supervisor"))
    os.write(ready, b"1")
    os.close(ready)
    log("supervisor starts")
    try:
        Supervisor(settings).run()
    finally:
        settings.pid_path("supervisor").unlink(missing_ok=True)
        status_path(settings).unlink(missing_ok=True)
        log("supervisor ends")


if __name__ == "__main__":
    sys.exit(main())
