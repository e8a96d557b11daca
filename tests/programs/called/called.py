# SPDX-License-Identifier: Apache-2.0
"""Serves its channel; with HTTP=1 in its environment it answers on its port as well.

With KEEP=1 it attaches, and does not let go.
The methods are what tests ask for: answers, failures, waits, an end, and calls of others.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aetherless_client


def echo(data: bytes) -> bytes:
    """Return what was given."""
    return data


def written(data: bytes) -> bytes:
    """Write a line about this execution, and return what was given."""
    print(f"did {data.decode()}", flush=True)
    return data


def process(_: bytes) -> bytes:
    """Say which process answers, and which revision's environment it has."""
    return f"{os.getpid()} {os.environ.get('DEPLOY', '')}".encode()


def slow(data: bytes) -> bytes:
    """Return what was given after as many seconds as it says."""
    time.sleep(float(data))
    return data


def fail(data: bytes) -> bytes:
    """Raise what was given."""
    raise ValueError(data.decode())


def die(_: bytes) -> bytes:
    """End this process as a crash would."""
    signal.raise_signal(signal.SIGKILL)
    return b""


def knock(data: bytes) -> bytes:
    """Connect to a side socket by its path, and return what it says first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5)
        try:
            connection.connect(data.decode())
            return connection.recv(512)
        except OSError as error:
            return str(error).encode()


def relay(data: bytes) -> bytes:
    """Call another function, and return what it answered, or the reason that it did not."""
    function, _, rest = data.decode().partition(" ")
    try:
        return aetherless_client.call(function, rest.encode(), timeout=20)
    except aetherless_client.ClientError as error:
        return error.reason.encode()


def bound(_: bytes) -> bytes:
    """Listen on any port of the loopback; return where that is, and the port it was told of."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"{server.getsockname()[0]} {os.environ.get('PORT')}".encode()


METHODS = {
    "": echo,
    "bound": bound,
    "die": die,
    "fail": fail,
    "knock": knock,
    "process": process,
    "relay": relay,
    "slow": slow,
    "written": written,
}


class Hello(BaseHTTPRequestHandler):
    """Answers every GET."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer with the process id."""
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve the channel, the port when that is wanted, or both."""
    if os.environ.get("HTTP"):
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello)
        threading.Thread(target=server.serve_forever).start()
    if os.environ.get("KEEP"):
        kept = aetherless_client.attach()
        signal.pause()
        kept.close()
    if "AETHER_CHANNEL" in os.environ:
        aetherless_client.serve(METHODS, threads=4)


if __name__ == "__main__":
    main()
