# SPDX-License-Identifier: Apache-2.0
"""Who listens in a network namespace, and the warm-up from inside it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_snapshotter import netns, processes, warmup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

HTTP = instance_pb2.Warmup(kind=instance_pb2.WARMUP_KIND_HTTP, path="/ready?x=1")
PORT = 8080


@pytest.fixture
def namespace() -> Iterator[Path]:
    """Return a network namespace of its own, with lo up."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"up\n"
    yield Path(f"/proc/{process.pid}/ns/net")
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=10)


def listen(namespace: Path, family: int, address: str, *, only_ipv6: bool = False) -> socket.socket:
    """Listen in a namespace."""
    listener = netns.make_socket(namespace, family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, PORT))
    listener.listen(16)
    listener.settimeout(10)
    return listener


@pytest.mark.parametrize(
    ("family", "address", "only_ipv6", "expected"),
    [
        (socket.AF_INET, "127.0.0.1", False, snapshot_pb2.LISTEN_FAMILIES_IPV4),
        (socket.AF_INET, "0.0.0.0", False, snapshot_pb2.LISTEN_FAMILIES_IPV4),
        (socket.AF_INET6, "::", False, snapshot_pb2.LISTEN_FAMILIES_DUAL),
        (socket.AF_INET6, "::", True, snapshot_pb2.LISTEN_FAMILIES_IPV6),
        (socket.AF_INET6, "::1", False, snapshot_pb2.LISTEN_FAMILIES_IPV6),
        (socket.AF_INET6, "::ffff:127.0.0.1", False, snapshot_pb2.LISTEN_FAMILIES_IPV4),
    ],
)
def test_families(
    namespace: Path, family: int, address: str, *, only_ipv6: bool, expected: int
) -> None:
    """The kernel says which clients a listener takes, and where a probe reaches it."""
    with (
        listen(namespace, family, address, only_ipv6=only_ipv6),
        netns.TcpTable(namespace) as table,
    ):
        found = table.listeners(PORT)
        assert netns.families(found) == expected
        assert table.listeners(PORT + 1) == []
        probe_family, probe_address = found[0].probe_address
        with netns.make_socket(namespace, probe_family, socket.SOCK_STREAM) as client:
            client.connect((probe_address, PORT))


def test_both_families_by_two_listeners(namespace: Path) -> None:
    """A server may bind each family by itself."""
    with (
        listen(namespace, socket.AF_INET, "0.0.0.0"),
        listen(namespace, socket.AF_INET6, "::", only_ipv6=True),
        netns.TcpTable(namespace) as table,
    ):
        found = table.listeners(PORT)
    assert netns.families(found) == snapshot_pb2.LISTEN_FAMILIES_DUAL


def test_the_hosts_sockets_are_not_seen(namespace: Path) -> None:
    """The same port outside is another one."""
    with socket.create_server(("127.0.0.1", 0)) as outside, netns.TcpTable(namespace) as table:
        assert table.on_port(outside.getsockname()[1]) == []


def test_connections_are_told_from_listeners(namespace: Path) -> None:
    """Both ends of a connection to the port are found while it lives."""
    with (
        listen(namespace, socket.AF_INET, "127.0.0.1") as listener,
        netns.make_socket(namespace, socket.AF_INET, socket.SOCK_STREAM) as client,
        netns.TcpTable(namespace) as table,
    ):
        client.connect(("127.0.0.1", PORT))
        accepted, _ = listener.accept()
        with accepted:
            (connection,) = table.connections(PORT)
        assert connection.remote_port == client.getsockname()[1]
        assert len(table.listeners(PORT)) == 1


def answer(listener: socket.socket, *answers: bytes, requests: list[bytes]) -> threading.Thread:
    """Answer one connection after the other, on a thread."""

    def serve() -> None:
        for text in answers:
            connection, _ = listener.accept()
            with connection:
                if text:
                    requests.append(connection.recv(65536))
                    connection.sendall(text)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def warm(
    namespace: Path,
    how: instance_pb2.Warmup,
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Warm up whoever listens on the port."""
    with netns.TcpTable(namespace) as table:
        (found,) = table.listeners(PORT)
    return warmup.warm_up(namespace, found, how, time.monotonic() + seconds, check)


def test_any_status_is_an_answer_and_tries_are_repeated(namespace: Path) -> None:
    """Servers listen before their workers can answer: an empty answer is not one."""
    requests: list[bytes] = []
    with listen(namespace, socket.AF_INET, "0.0.0.0") as listener:
        thread = answer(listener, b"", b"HTTP/1.1 404 Not Found\r\n\r\n", requests=requests)
        said = warm(namespace, HTTP, 10)
        thread.join(timeout=10)
    assert said == "HTTP/1.1 404 Not Found, try 2"
    assert requests[0].startswith(b"GET /ready?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")


def test_what_is_not_http_is_no_answer(namespace: Path) -> None:
    """The last try's end is told."""
    with listen(namespace, socket.AF_INET, "0.0.0.0") as listener:
        thread = answer(listener, b"+PONG\r\n", requests=[])
        with pytest.raises(warmup.NoAnswerError, match=r"PONG|timed out"):
            warm(namespace, HTTP, 0.2)
        thread.join(timeout=10)


def test_a_head_without_end_is_no_answer(namespace: Path) -> None:
    """A server that sends for ever holds nobody up beyond the deadline."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.01):
                connection.sendall(b"x")

    with listen(namespace, socket.AF_INET, "0.0.0.0") as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        with pytest.raises(warmup.NoAnswerError, match="head did not end"):
            warm(namespace, HTTP, 0.3)
        over.set()
        thread.join(timeout=10)


def test_a_silent_server_is_given_up(namespace: Path) -> None:
    """It listens, and never answers."""
    with (
        listen(namespace, socket.AF_INET, "0.0.0.0"),
        pytest.raises(warmup.NoAnswerError, match="timed out"),
    ):
        warm(namespace, HTTP, 0.2)


def test_tcp_and_none(namespace: Path) -> None:
    """Other protocols: a connection, or nothing at all."""
    with listen(namespace, socket.AF_INET6, "::1"):
        tcp = instance_pb2.Warmup(kind=instance_pb2.WARMUP_KIND_TCP)
        assert warm(namespace, tcp, 10).startswith("connection accepted")
        none = instance_pb2.Warmup(kind=instance_pb2.WARMUP_KIND_NONE)
        assert warm(namespace, none, 10) == "none asked for"


def test_a_handler_that_ended_ends_the_warm_up(namespace: Path) -> None:
    """The caller's check decides."""

    def ended() -> None:
        raise InterruptedError("ended")

    with (
        listen(namespace, socket.AF_INET, "0.0.0.0"),
        pytest.raises(InterruptedError),
    ):
        warm(namespace, HTTP, 10, ended)


def test_a_listener_is_known_by_its_file(namespace: Path) -> None:
    """The inode number that the kernel tells is that of the process's descriptor."""
    with (
        listen(namespace, socket.AF_INET, "0.0.0.0") as listener,
        netns.TcpTable(namespace) as table,
    ):
        (found,) = table.listeners(PORT)
        assert found.inode == os.fstat(listener.fileno()).st_ino
        assert found.inode in processes.open_sockets(os.getpid())
    assert processes.open_sockets(0) == set()
