# SPDX-License-Identifier: Apache-2.0
"""The control protocol of ``init/README.md``: lines, one connection, answers and reports."""

from __future__ import annotations

import array
import os
import queue
import select
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_common.settings import LONGEST_SOCKET_PATH
from aetherless_snapshotter.sandbox_errors import (
    CommandTimeoutError,
    InFlightError,
    SandboxError,
    SandboxGoneError,
    WrongStateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SOCKET = "ctl.sock"
COMMAND_SECONDS = 10.0
_BACKLOG = 8
_LONGEST = 1 << 16
_SEND_BUFFER = 1 << 20
_RECONNECT_SECONDS = 0.02


@dataclass(frozen=True)
class Line:
    """One line of words: a verb, then ``key=value``."""

    verb: str
    values: dict[str, str]

    def number(self, key: str) -> int:
        """Return a value as a number; 0 when it is missing."""
        return int(self.values.get(key, "0"))


def encode(value: str | Path) -> str:
    """Return a value as it stands in a line: what is not ``!``..``~``, and %, as %XX."""
    raw = os.fsencode(value)
    return "".join(
        chr(byte) if ord("!") <= byte <= ord("~") and byte != ord("%") else f"%{byte:02X}"
        for byte in raw
    )


def _decode(value: str) -> str:
    head, *rest = value.split("%")
    raw = head.encode() + b"".join(bytes([int(one[:2], 16)]) + one[2:].encode() for one in rest)
    return raw.decode(errors="replace")


def write_line(verb: str, **values: str | int | Path) -> str:
    """Return a line; underscores of keys become hyphens."""
    words = (f"{key.replace('_', '-')}={encode(str(value))}" for key, value in values.items())
    return " ".join([verb, *words])


def read_line(text: str) -> Line:
    """Take a line apart."""
    verb, *words = text.split(" ")
    pairs = (word.partition("=") for word in words)
    return Line(verb, {key: _decode(value) for key, _, value in pairs})


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Give a path of the socket that is short enough for an address, however deep the folder.

    Its own path when it fits: that is what ``ss`` then shows.
    """
    path = os.fspath(folder / SOCKET)
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        yield path
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def listen(folder: Path) -> socket.socket:
    """Return the listening socket that an init is handed."""
    (folder / SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short_path(folder) as path:
        listener.bind(path)
    (folder / SOCKET).chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


class Control:
    """One connection to an init, with a thread that reads it.

    Args:
        instance: the instance's id, for errors.
        folder: the instance's folder.
        pidfd: the init's pidfd; its end is told by ``on_end``.
        on_report: called on the reading thread with each report.
        on_reconnect: called on the reading thread when the init had dropped the connection and a
            new one stands; reports may be missing.
        on_end: called on the reading thread when the init is gone.
    """

    def __init__(
        self,
        instance: str,
        folder: Path,
        pidfd: int,
        on_report: Callable[[Line], None],
        on_reconnect: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._instance = instance
        self._folder = folder
        self._pidfd = pidfd
        self._on_report = on_report
        self._on_reconnect = on_reconnect
        self._on_end = on_end
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._closing, self._close = socket.socketpair()
        self._gone = threading.Event()
        self._socket = self._connect()
        self._thread = threading.Thread(target=self._read, name=f"init-{instance}", daemon=True)

    def start(self) -> None:
        """Begin to read; the callbacks come from now on."""
        self._thread.start()

    def close(self) -> None:
        """End the reading and the connection; ``on_end`` is not called any more."""
        self._close.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def ask(
        self,
        line: str,
        payload: bytes = b"",
        descriptors: Sequence[int] = (),
        timeout: float = COMMAND_SECONDS,
    ) -> list[Line]:
        """Send one command and return its answer's lines, the last one being ``ok``.

        Raises:
            SandboxGoneError: the init died.
            CommandTimeoutError: it did not answer.
            InFlightError: an evict was refused.
            WrongStateError: its state does not allow the command.
            SandboxError: the command failed.
        """
        with self._lock:
            self._send(line, payload, descriptors)
            answer = [self._next(line, timeout)]
            while answer[-1].verb not in ("ok", "error"):
                answer.append(self._next(line, timeout))
        if answer[-1].verb == "error":
            raise self._failure(answer[-1])
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        connection.settimeout(COMMAND_SECONDS)
        try:
            with _short_path(self._folder) as path:
                connection.connect(path)
        except OSError as error:
            connection.close()
            raise SandboxGoneError(
                self._instance, "connect", str(error), error.errno or 0
            ) from error
        return connection

    def _send(self, line: str, payload: bytes, descriptors: Sequence[int]) -> None:
        if self._gone.is_set():
            raise self._ended(line)
        while not self._answers.empty():
            self._answers.get_nowait()  # late, of a command that was given up
        message = line.encode() + (b"\0" + payload if payload else b"")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._socket.sendmsg([message], rights if descriptors else [])
        except OSError as error:
            raise self._ended(line) from error

    def _next(self, line: str, timeout: float) -> Line:
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._give_up()
            raise CommandTimeoutError(
                self._instance, line.partition(" ")[0], f"no answer within {timeout:g} s"
            ) from None
        if answer is None and self._gone.is_set():
            raise self._ended(line)
        if answer is None:
            raise CommandTimeoutError(
                self._instance, line.partition(" ")[0], "the connection was lost"
            )
        return answer

    def _give_up(self) -> None:
        """Change the connection: the answer that is due would be taken for a later command's."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(queue.Empty):
            while self._answers.get(timeout=COMMAND_SECONDS) is not None:
                pass

    def _ended(self, line: str) -> SandboxGoneError:
        return SandboxGoneError(self._instance, line.partition(" ")[0], "its init is gone")

    def _failure(self, answer: Line) -> SandboxError:
        step, detail = answer.values.get("step", ""), answer.values.get("detail", "")
        kind = {"in-flight": InFlightError, "state": WrongStateError}.get(step, SandboxError)
        return kind(self._instance, step, detail, answer.number("errno"))

    def _read(self) -> None:
        """Read until the init ends or ``close`` is called."""
        while self._wait():
            try:
                data = self._socket.recv(_LONGEST)
            except OSError:
                data = b""
            if data:
                self._take(data.decode())
            elif not self._reconnect():
                break
        self._gone.set()
        self._answers.put(None)
        self._socket.close()
        if not _ready(self._closing):
            self._on_end()
        self._closing.close()

    def _wait(self) -> bool:
        """Wait for a message; False when the init is gone or the end was asked for."""
        poll = select.poll()
        for descriptor in (self._socket.fileno(), self._pidfd, self._closing.fileno()):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        if self._closing.fileno() in ready:
            return False
        return self._socket.fileno() in ready or self._pidfd not in ready

    def _take(self, text: str) -> None:
        if text.startswith("report "):
            self._on_report(read_line(text.removeprefix("report ")))
        else:
            self._answers.put(read_line(text))

    def _reconnect(self) -> bool:
        """Connect anew when the init lives: it drops clients that do not read fast enough."""
        if _ready(self._pidfd, _RECONNECT_SECONDS):
            return False
        try:
            fresh = self._connect()
        except SandboxGoneError:
            return False
        self._socket.close()
        self._socket = fresh
        self._answers.put(None)
        self._on_reconnect()
        return True


def _ready(source: int | socket.socket, timeout: float = 0.0) -> bool:
    """Tell whether a descriptor has something to read, or its end, within ``timeout`` seconds."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
