# SPDX-License-Identifier: Apache-2.0
"""A server with open files of every kind: each request uses them all and says how they are.

Everything is opened once, before the first request: two SQLite databases, one of them shipped with
the program, a log, a pid file, a sparse file, a temporary file that has no name, and a Unix socket
that listens.
"""

from __future__ import annotations

import ast
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOKEN = secrets.token_hex(8)
COUNTER = count(1)
COUNT = "SELECT count(*) FROM visits"
DATABASES = {"shipped": HERE / "data" / "shipped.sqlite3", "own": HERE / "own.sqlite3"}
HOLE = 100 << 20  # bytes
SPARSE = Path("/tmp/sparse")
LOG, PID_FILE, SOCKET = HERE / "log", Path("/tmp/files.pid"), "/tmp/files.sock"


class Held:
    """What stays open from the start on."""

    def __init__(self) -> None:
        self.databases = {name: opened(path) for name, path in DATABASES.items()}
        self.databases["own"].execute("PRAGMA journal_mode = WAL")
        self.log = LOG.open("a", buffering=1)
        PID_FILE.write_text(str(os.getpid()))
        self.sparse = SPARSE.open("w+b")
        self.sparse.seek(HOLE)
        self.sparse.write(TOKEN.encode())
        self.sparse.flush()
        self.temporary = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(SOCKET)
        self.listener.listen()
        threading.Thread(target=self.greet, daemon=True).start()

    def greet(self) -> None:
        """Answer at the Unix socket for ever."""
        while True:
            client, _ = self.listener.accept()
            with client:
                client.sendall(TOKEN.encode())


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to a database that has the one table."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS visits (number INTEGER)")
    return connection


def rows(connection: sqlite3.Connection) -> int:
    """Return how many rows there are."""
    found: int = connection.execute(COUNT).fetchone()[0]
    return found


def database(name: str, number: int) -> dict[str, Any]:
    """Add a row by the connection that was open all the time; look by that and by a new one."""
    HELD.databases[name].execute("INSERT INTO visits VALUES (?)", (number,))
    # Another process: SQLite takes files of this one for others when their device has changed.
    script = f"import sqlite3; print(*sqlite3.connect({str(DATABASES[name])!r}).execute({COUNT!r}))"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    (sound,) = HELD.databases[name].execute("PRAGMA integrity_check").fetchone()
    return {
        "rows": rows(HELD.databases[name]),
        "seen": ast.literal_eval(seen.decode())[0],
        "sound": sound,
    }


def log(number: int) -> list[str]:
    """Append a line and return all of them, read by the file's name."""
    HELD.log.write(f"request {number}\n")
    return LOG.read_text().splitlines()


def temporary(number: int) -> str:
    """Write to the file without a name, and return what it holds."""
    HELD.temporary.write(f"{number} ".encode())
    HELD.temporary.seek(0)
    return HELD.temporary.read().decode()


def sparse() -> dict[str, Any]:
    """Return what follows the hole of a sparse file, and the bytes that it takes."""
    HELD.sparse.seek(HOLE)
    return {"end": HELD.sparse.read().decode(), "bytes": SPARSE.stat().st_blocks * 512}


def unix_socket() -> str:
    """Return what is said at the Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(SOCKET)
        return client.recv(64).decode()


def report() -> dict[str, Any]:
    """Use each file, and say how it is."""
    number = next(COUNTER)
    return {
        "token": TOKEN,
        "count": number,
        "pid": os.getpid(),
        "pid_file": int(PID_FILE.read_text()),
        "databases": {name: database(name, number) for name in DATABASES},
        "log": log(number),
        "temporary": temporary(number),
        "links": os.fstat(HELD.temporary.fileno()).st_nlink,
        "sparse": sparse(),
        "socket": unix_socket(),
    }


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with the report, or with what went wrong."""

    def do_GET(self) -> None:
        """Answer one request."""
        try:
            told = report()
        except (OSError, sqlite3.Error) as error:
            told = {"error": repr(error)}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    HELD = Held()
    HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
