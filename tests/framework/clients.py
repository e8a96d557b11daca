# SPDX-License-Identifier: Apache-2.0
"""HTTP clients that look at their own socket: what came back, how fast, after how many repeats."""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Offset of tcpi_total_retrans in struct tcp_info of include/uapi/linux/tcp.h:
# eight bytes of small fields, then 23 words before it.
TOTAL_RETRANS_OFFSET = 8 + 23 * 4
TCP_INFO_SIZE = 232
CHUNK = 65536
OK_STATUS = 200


def total_retransmissions(client: socket.socket) -> int:
    """Return how many segments the kernel had to send again on this connection."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return int(struct.unpack_from("=I", info, TOTAL_RETRANS_OFFSET)[0])


@dataclass
class Answer:
    """What one call came to.

    Arguments:
        status: The HTTP status; 0 when none came.
        body: The body's bytes.
        retransmissions: tcpi_total_retrans of the client's socket at the end.
        first_byte_s: From before connect to the first byte of the answer, in seconds.
        error: The errno's name when the call failed, else empty.
    """

    status: int = 0
    body: bytes = b""
    retransmissions: int = 0
    first_byte_s: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was answered with 200."""
        return self.status == OK_STATUS and not self.error

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise TypeError(f"not an object: {value!r}")
        return value


def request_bytes(path: str, *, keep_alive: bool = False) -> bytes:
    """Return a GET request."""
    connection = "keep-alive" if keep_alive else "close"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode()


def split_response(raw: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Return status, headers and what came of the body; None before the headers are whole."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator:
        return None
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return int(lines[0].split()[1]), headers, body


def dechunk(body: bytes) -> bytes | None:
    """Return the content of a chunked body; None before its last chunk came."""
    content = b""
    while True:
        size_text, separator, rest = body.partition(b"\r\n")
        if not separator:
            return None
        size = int(size_text.split(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        if size == 0:
            return content
        content, body = content + rest[:size], rest[size + 2 :]


def whole_response(raw: bytes, *, ended: bool) -> tuple[int, bytes] | None:
    """Return status and body once they are whole, by length, chunks or the connection's end."""
    parts = split_response(raw)
    if parts is None:
        return None
    status, headers, body = parts
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = dechunk(body)
        return None if content is None else (status, content)
    if "content-length" in headers:
        length = int(headers["content-length"])
        return (status, body[:length]) if len(body) >= length else None
    return (status, body) if ended else None


@dataclass
class Call:
    """One call in progress on a non-blocking socket.

    Arguments:
        client: The socket.
        request: What is still to be sent.
        started: When connect began, by the monotonic clock.
    """

    client: socket.socket
    request: bytes
    started: float
    received: bytearray = field(default_factory=bytearray)
    answer: Answer = field(default_factory=Answer)
    done: bool = False

    def fail(self, code: int | None) -> None:
        """End it with an errno."""
        self.answer.error = errno.errorcode.get(code or 0, f"errno {code}")
        self.finish()

    def finish(self) -> None:
        """Note the socket's counters and close it."""
        self.answer.retransmissions = total_retransmissions(self.client)
        self.client.close()
        self.done = True

    def on_writable(self) -> None:
        """Send what can be sent."""
        code = self.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(code)
            return
        sent = self.client.send(self.request)
        self.request = self.request[sent:]

    def on_readable(self) -> None:
        """Take what came; end when the answer is whole."""
        data = self.client.recv(CHUNK)
        if data and not self.received:
            self.answer.first_byte_s = time.monotonic() - self.started
        self.received += data
        whole = whole_response(bytes(self.received), ended=not data)
        if whole is not None:
            self.answer.status, self.answer.body = whole
            self.finish()
        elif not data:
            self.fail(errno.ENODATA)

    def step(self, events: int) -> None:
        """Do what the socket is ready for."""
        try:
            if events & select.EPOLLOUT and self.request:
                self.on_writable()
            if not self.done and events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self.on_readable()
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error.errno)


def begin(port: int, path: str, host: str) -> Call:
    """Open a non-blocking connection; the request is sent when it stands."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    call = Call(client, request_bytes(path), time.monotonic())
    code = client.connect_ex((host, port))
    if code not in (0, errno.EINPROGRESS):
        call.fail(code)
    return call


def drive(calls: list[Call], timeout_s: float) -> None:
    """Run calls to their ends; those that have none in time end with ETIMEDOUT."""
    poll = select.epoll()
    open_calls = {call.client.fileno(): call for call in calls if not call.done}
    for number in open_calls:
        poll.register(number, select.EPOLLIN | select.EPOLLOUT)
    deadline = time.monotonic() + timeout_s
    while open_calls and (left := deadline - time.monotonic()) > 0:
        for number, events in poll.poll(left):
            call = open_calls[number]
            before = bool(call.request)
            call.step(events)
            if call.done:
                del open_calls[number]  # closing took it out of the epoll set
            elif before and not call.request:
                poll.modify(number, select.EPOLLIN)
    for call in open_calls.values():
        call.fail(errno.ETIMEDOUT)
    poll.close()


def burst(
    port: int, count: int, path: str = "/", *, host: str = "127.0.0.1", timeout_s: float = 30.0
) -> list[Answer]:
    """Make calls at the same time, each on a connection of its own; return every answer."""
    calls = [begin(port, path, host) for _ in range(count)]
    drive(calls, timeout_s)
    return [call.answer for call in calls]


def call(port: int, path: str = "/", *, host: str = "127.0.0.1", timeout_s: float = 30.0) -> Answer:
    """Make one call on a connection of its own; failures are in the answer, not raised."""
    return burst(port, 1, path, host=host, timeout_s=timeout_s)[0]


class KeptConnection:
    """One client connection that is used for many requests.

    Arguments:
        port: The port to connect to.
        host: The host's address.
        timeout_s: Bounds connect and each answer, in seconds.
        make: Makes the socket, where that has to be one of another namespace.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        timeout_s: float = 30.0,
        make: Callable[[], socket.socket] = socket.socket,
    ) -> None:
        self.client = make()
        self.client.settimeout(timeout_s)
        self.client.connect((host, port))

    def request(self, path: str = "/") -> Answer:
        """Send one request and return its answer; OSError when the connection broke."""
        started = time.monotonic()
        self.client.sendall(request_bytes(path, keep_alive=True))
        raw = b""
        answer = Answer()
        while (whole := whole_response(raw, ended=False)) is None:
            data = self.client.recv(CHUNK)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "closed before the answer was whole")
            answer.first_byte_s = answer.first_byte_s or time.monotonic() - started
            raw += data
        answer.status, answer.body = whole
        answer.retransmissions = total_retransmissions(self.client)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
