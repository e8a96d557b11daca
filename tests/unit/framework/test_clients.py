# SPDX-License-Identifier: Apache-2.0
"""The instrument is right: answers of every framing, and retransmissions that really happened."""

from __future__ import annotations

import socket
import threading

import pytest

from framework.clients import burst, call, dechunk, whole_response

BODY = b'{"a": 1}'


@pytest.mark.parametrize(
    ("raw", "ended", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", True, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + BODY[:5], False, None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n" + BODY, False, (200, BODY)),
        (b"HTTP/1.0 404 Not Found\r\n\r\n" + BODY, False, None),
        (b"HTTP/1.0 404 Not Found\r\n\r\n" + BODY, True, (404, BODY)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            False,
            (200, b"hello"),
        ),
    ],
)
def test_an_answer_is_whole_by_its_own_framing(
    raw: bytes, expected: tuple[int, bytes] | None, *, ended: bool
) -> None:
    """Length, chunks or the end of the connection, whichever the head says."""
    assert whole_response(raw, ended=ended) == expected


def test_chunks_are_put_together() -> None:
    """Nothing is taken for whole before the last chunk."""
    assert dechunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n") == b"abcde"
    assert dechunk(b"3\r\nabc\r\n") is None


def serve_once(server: socket.socket) -> None:
    """Answer one connection."""
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + BODY)
    client.close()


def test_a_call_tells_status_body_and_time() -> None:
    """A served call is ok, has a body, a first byte's time and no retransmission."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve_once, args=(server,))
        thread.start()
        answer = call(server.getsockname()[1], timeout_s=10)
        thread.join(10)
    assert answer.ok
    assert answer.json() == {"a": 1}
    assert answer.first_byte_s > 0
    assert answer.retransmissions == 0


def test_retransmissions_are_counted() -> None:
    """A listener whose queue is full makes its clients' SYNs go out again, and that is seen."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        answers = burst(server.getsockname()[1], 4, timeout_s=1.6)
    assert [answer.error for answer in answers] == ["ETIMEDOUT"] * 4
    assert max(answer.retransmissions for answer in answers) >= 1


def test_a_refusal_has_its_name() -> None:
    """Nobody listens: ECONNREFUSED, and no status."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = call(port, timeout_s=10)
    assert (answer.status, answer.error) == (0, "ECONNREFUSED")
