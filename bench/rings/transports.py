# SPDX-License-Identifier: Apache-2.0
"""Ways to pass bytes to another process and back, each made before the fork and used on both sides.

A transport has ``ask(payload)`` for the side that calls, and ``serve(count)`` for the side that
answers each payload with itself.
"""

from __future__ import annotations

import http.client
import json
import mmap
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import zmq

from aetherless_ring import Consumer, Producer
from aetherless_ring.layout import Direction, Layout

RING_BYTES = 1 << 20  # fits the second-level cache
LIMIT_S = 30.0
LARGEST = 1 << 20


class Ring:
    """Our ring; ``spin`` is how long a side spins before it sleeps, in seconds."""

    def __init__(self, spin: float) -> None:
        size = Layout(RING_BYTES).region_bytes
        descriptor = os.memfd_create("bench-ring")
        os.ftruncate(descriptor, size)
        self.memory = mmap.mmap(descriptor, size)
        self.spin = spin
        push = spin > 0
        self.out: Any = Producer(self.memory, Direction.TO_PEER, RING_BYTES, push=push)
        self.back: Any = Consumer(self.memory, Direction.FROM_PEER, RING_BYTES)
        self._publish, self._receive = self.out.publish, self.back.receive

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        self._publish(payload)
        answer: bytes = self._receive(LIMIT_S, self.spin)[1]
        return answer

    def serve(self, count: int) -> None:
        """Answer."""
        spin = self.spin
        incoming: Any = Consumer(self.memory, Direction.TO_PEER, RING_BYTES)
        outgoing: Any = Producer(self.memory, Direction.FROM_PEER, RING_BYTES, push=spin > 0)
        publish, receive = outgoing.publish, incoming.receive
        for _ in range(count):
            publish(receive(LIMIT_S, spin)[1])


class UnixSocket:
    """A pair of Unix sockets with message boundaries."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        self.ours.send(payload)
        return self.ours.recv(LARGEST)

    def serve(self, count: int) -> None:
        """Answer."""
        for _ in range(count):
            self.theirs.send(self.theirs.recv(LARGEST))


class Pipes:
    """Two pipes."""

    def __init__(self) -> None:
        self.there, self.back = os.pipe(), os.pipe()

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        os.write(self.there[1], payload)
        return os.read(self.back[0], LARGEST)

    def serve(self, count: int) -> None:
        """Answer."""
        for _ in range(count):
            os.write(self.back[1], os.read(self.there[0], LARGEST))


class Tcp:
    """A TCP connection over loopback, without Nagle's delay."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.ours = socket.create_connection(server.getsockname())
            self.theirs, _ = server.accept()
        for end in (self.ours, self.theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        self.ours.sendall(payload)
        return self.ours.recv(len(payload), socket.MSG_WAITALL)

    def serve(self, count: int) -> None:
        """Answer; the first payload tells the length of all."""
        first = self.theirs.recv(LARGEST)
        self.theirs.sendall(first)
        for _ in range(count - 1):
            self.theirs.sendall(self.theirs.recv(len(first), socket.MSG_WAITALL))


class Served:
    """A transport whose sides meet at an address: the server's is made after the fork."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="aether-b")
        self.address = f"{self.folder}/socket"
        self.client: Any = None


class ZeroMq(Served):
    """pyzmq: a pair of PAIR sockets over ipc."""

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        if self.client is None:
            self.client = zmq.Context().socket(zmq.PAIR)
            self.client.connect(f"ipc://{self.address}")
        self.client.send(payload)
        answer: bytes = self.client.recv()
        return answer

    def serve(self, count: int) -> None:
        """Answer."""
        server = zmq.Context().socket(zmq.PAIR)
        server.bind(f"ipc://{self.address}")
        for _ in range(count):
            server.send(server.recv())
        server.close(linger=1000)


class Grpc(Served):
    """grpcio: a unary call of raw bytes over a Unix socket."""

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        if self.client is None:
            channel = grpc.insecure_channel(f"unix:{self.address}")
            grpc.channel_ready_future(channel).result(LIMIT_S)
            self.client = channel.unary_unary("/bench.Echo/Echo")
        answer: bytes = self.client(payload)
        return answer

    def serve(self, count: int) -> None:
        """Answer until the other side is done; count does not matter."""
        del count
        server = grpc.server(ThreadPoolExecutor(2))
        method: Any = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        handler = grpc.method_handlers_generic_handler("bench.Echo", {"Echo": method})
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{self.address}")
        server.start()
        server.wait_for_termination()


class EchoHandler(BaseHTTPRequestHandler):
    """Answers a JSON body with an equal one, on a connection that stays."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"data": json.loads(body)["data"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class HttpJson:
    """The standard library's HTTP server and client, JSON in both directions."""

    def __init__(self) -> None:
        self.server = HTTPServer(("127.0.0.1", 0), EchoHandler)
        self.client: http.client.HTTPConnection | None = None

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        if self.client is None:
            self.client = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        self.client.request("POST", "/", json.dumps({"data": payload.decode()}))
        return str(json.loads(self.client.getresponse().read())["data"]).encode()

    def serve(self, count: int) -> None:
        """Answer until the other side is done; count does not matter."""
        del count
        self.server.serve_forever()
