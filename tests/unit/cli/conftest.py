# SPDX-License-Identifier: Apache-2.0
"""Folders of a test's own, and a server that plays the four services by script."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree

import grpc
import pytest

from aetherless_common.settings import Settings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Give settings whose folders are the test's own; paths short enough for sockets."""
    home = Path(tempfile.mkdtemp(prefix="aether-cli-"))
    monkeypatch.setenv("AETHER_RUNTIME_DIR", str(home / "r"))
    monkeypatch.setenv("AETHER_STATE_DIR", str(home / "s"))
    loaded = Settings.load(os.environ).replace(snapshot_dir=home / "shm")
    loaded.write()
    yield loaded
    rmtree(home)


Play = Callable[[str, Callable[[grpc.Server], None]], grpc.Server]


@pytest.fixture
def play(settings: Settings) -> Iterator[Play]:
    """Give a function that serves a servicer on a service's socket."""
    servers = []

    def start(service: str, register: Callable[[grpc.Server], None]) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(8))
        register(server)
        assert server.add_insecure_port(f"unix:{settings.socket_path(service)}")
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(None).wait(5)
