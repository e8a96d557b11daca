# SPDX-License-Identifier: Apache-2.0
"""A handler that has the fault which the variable FAULT names; else it answers every GET.

A GET of a fault's name has that fault while it is served.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from stuck import STUCK  # type: ignore[import-not-found]  # it lies beside the handler

if TYPE_CHECKING:
    from collections.abc import Callable

PORT = int(os.environ["PORT"])
MIB = 1 << 20
RETRY_S = 0.05
SPINNERS = 200
kept: list[object] = []


class Handler(BaseHTTPRequestHandler):
    """Answers every GET; a path that is a fault's name has it first."""

    def do_GET(self) -> None:
        """Have the fault that the path names, and answer."""
        FAULTS.get(self.path.strip("/"), lambda: None)()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def serve() -> None:
    """Answer for ever."""
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


def say(words: str) -> None:
    """Write to the log."""
    print(f"faulty: {words}", flush=True)


# Those that end


def ends_well() -> None:
    """End at once, with status 0."""
    say("nothing to do")


def raises() -> None:
    """End with a traceback."""
    raise RuntimeError("no configuration")


def crashes() -> None:
    """End by a fault of memory."""
    ctypes.string_at(0)


def kills_itself() -> None:
    """End by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def daemonizes() -> None:
    """Fork; the parent ends, and the child listens and answers in a session of its own."""
    if os.fork():
        say("gone into the background")
        sys.exit(0)
    os.setsid()
    serve()


def listens_and_ends() -> None:
    """Listen, and end before anything was answered."""
    socket.create_server(("", PORT))
    sys.exit("faulty: second thoughts")


def ends_in_the_warm_up() -> None:
    """End when the first request comes."""
    socket.create_server(("", PORT)).accept()
    say("cannot serve this")
    os._exit(9)


def ends_after_the_warm_up() -> None:
    """Answer one request, then end while the checkpoint is prepared."""
    client, _ = socket.create_server(("", PORT)).accept()
    client.recv(MIB)
    client.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")
    say("served one, that is enough")
    client.close()
    os._exit(5)


def ends_with_many_words() -> None:
    """End after log lines that fit into no error's metadata, and are no text."""
    line = b"\xff" * MIB + b"\n"
    for _ in range(30):
        os.write(1, line)
    sys.exit("faulty: that was all")


# Those that can't be reached, or don't answer


def waits() -> None:
    """Do nothing for ever."""
    say("thinking")
    while True:
        signal.pause()


def listens_elsewhere() -> None:
    """Listen on another port."""
    kept.append(socket.create_server(("", 1 + PORT % 60000 + 1024)))
    waits()


def listens_for_datagrams() -> None:
    """Bind the port for UDP."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", PORT))
    kept.append(server)
    waits()


def listens_on_a_path() -> None:
    """Listen on a Unix socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind("/tmp/faulty.sock")
    server.listen()
    kept.append(server)
    waits()


def says_ready_only() -> None:
    """Say READY and never listen."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(os.environ["AETHER_SOCKET"])
        channel.sendall(b"READY")
    waits()


def stops_itself() -> None:
    """Stop before it listens."""
    os.kill(os.getpid(), signal.SIGSTOP)


def ignores_sigterm() -> None:
    """Ignore every signal that can be, and never listen."""
    ignore_signals()
    waits()


def ignore_signals() -> None:
    """Ignore every signal that can be."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def accepts_only() -> None:
    """Accept every connection and never answer."""
    server = socket.create_server(("", PORT))
    while True:
        kept.append(server.accept())


def hangs_up() -> None:
    """Hear every client out, and close without a word."""
    server = socket.create_server(("", PORT))
    while True:
        client, _ = server.accept()
        client.recv(65536)
        client.close()


def speaks_another_protocol() -> None:
    """Answer with something that is no HTTP."""
    server = socket.create_server(("", PORT))
    while True:
        client, _ = server.accept()
        client.sendall(b"220 mail.example ESMTP\r\n")
        client.close()


def drips() -> None:
    """Answer one byte of a header at a time and never come to its end."""
    server = socket.create_server(("", PORT))
    while True:
        client, _ = server.accept()
        threading.Thread(target=drip, args=(client,), daemon=True).start()


def drip(client: socket.socket) -> None:
    """Send without end."""
    try:
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            client.sendall(b"x")
            time.sleep(0.01)
    except OSError:
        client.close()


# Those that want too much


def eat() -> None:
    """Use memory without end."""
    while True:
        kept.append(bytearray(os.urandom(1) * MIB))


def eats_in_a_child() -> None:
    """Have a child use memory without end, and serve when it has ended."""
    if not os.fork():
        eat()
    os.wait()
    serve()


def eats_in_the_warm_up() -> None:
    """Use memory without end once a request comes."""
    socket.create_server(("", PORT)).accept()
    eat()


def shares_memory() -> None:
    """Use memory without end in shared mappings."""
    while True:
        area = mmap.mmap(-1, MIB)
        area.write(b"x" * MIB)
        kept.append(area)


def fill(folder: str) -> None:
    """Write into a folder until it is full, and say how much went in."""
    written = 0
    try:
        with Path(folder, "fill").open("wb", buffering=0) as file:
            while True:
                written += file.write(b"x" * MIB)
    except OSError as error:
        say(f"{written} bytes into {folder}, then {error.strerror}")


def fills_folders() -> None:
    """Fill every folder that can be written to, and end."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"]):
        fill(folder)
    sys.exit(7)


def fills_tmp() -> None:
    """Fill /tmp, and go on."""
    fill("/tmp")


def makes_files() -> None:
    """Make empty files until there can be no more, and end."""
    made = 0
    try:
        while True:
            Path(f"/tmp/{made}").touch()
            made += 1
    except OSError as error:
        sys.exit(f"faulty: {made} files, then {error.strerror}")


def bombs() -> None:
    """Fork without end, also in every child."""
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(RETRY_S)


def spins_in_sessions() -> None:
    """Keep the processors busy with many processes, each in a session of its own."""
    for _ in range(SPINNERS):
        if not os.fork():
            os.setsid()
            while True:
                pass


def forks_and_ends() -> None:
    """Leave a child behind that waits."""
    if os.fork():
        os._exit(0)
    waits()


def starts_threads() -> None:
    """Start threads without end."""
    while True:
        threading.Thread(target=wait_quietly, daemon=True).start()


def ends_at_its_process_limit() -> None:
    """Start threads as long as that is possible, then end."""
    try:
        starts_threads()
    except RuntimeError:
        os._exit(3)


def wait_quietly() -> None:
    """Do nothing for ever, in a thread."""
    threading.Event().wait()


# Those that come later


def floods_the_log() -> None:
    """Write a GB of log."""
    line = b"f" * 1023 + b"\n"
    for _ in range(1024):
        os.write(1, line * 1024)
    say("flooded")


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        *(ends_well, raises, crashes, kills_itself, daemonizes, listens_and_ends),
        *(ends_in_the_warm_up, ends_after_the_warm_up, ends_with_many_words),
        *(listens_elsewhere, listens_for_datagrams, listens_on_a_path, says_ready_only),
        *(
            waits,
            stops_itself,
            ignores_sigterm,
            accepts_only,
            hangs_up,
            speaks_another_protocol,
            drips,
        ),
        *(eat, eats_in_a_child, eats_in_the_warm_up, shares_memory, fills_folders),
        *(fills_tmp, makes_files),
        *(bombs, spins_in_sessions, forks_and_ends, starts_threads, ends_at_its_process_limit),
        *(floods_the_log,),
    )
}

if __name__ == "__main__":
    name = os.environ.get("FAULT", "")
    if name in STUCK:
        STUCK[name]()
    if name == "ignores_sigterm_later":
        ignore_signals()
    FAULTS.get(name, serve)()
