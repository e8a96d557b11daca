# SPDX-License-Identifier: Apache-2.0
"""The host is not what it was: snapshots that rely on it are made anew, so that all can see it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_snapshotter.manifest import sealed, unsealed
from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from pathlib import Path

ID = "renewed"
REMADE_S = 60.0

HANDLER = """
import ctypes, http.server, json, os

library = ctypes.CDLL(os.environ["LIBRARY"])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"answer": library.answer()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


def install(library: Path, answer: int) -> None:
    """Put a build of the library in place of the last one, as a package manager does."""
    fresh = library.with_suffix(".new")
    command = ["gcc", "-shared", "-fPIC", "-Wl,--build-id", "-x", "c", "-", "-o", str(fresh)]
    source = f"int answer(void) {{ return {answer}; }}"
    subprocess.run(command, input=source.encode(), check=True, timeout=60)
    os.replace(fresh, library)  # noqa: PTH105 - atomic, as the name says


def remade(mesh: Orchestrator) -> list[dict[str, Any]]:
    """Return the events of snapshots that were made anew."""
    told = json.loads(mesh.must("-o", "json", "events").out)["events"]
    return [event for event in told if event["reason"] == "SNAPSHOT_REMADE"]


@pytest.mark.parametrize("awake", [False, True], ids=["armed", "running"])
def test_an_upgraded_library(tmp_path: Path, *, awake: bool) -> None:
    """The function gets a new snapshot with the new library; an event says why.

    A running instance goes on with the old library until it is evicted.
    """
    library = tmp_path / "libraries" / "libanswer.so"
    library.parent.mkdir()
    install(library, 1)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "handler.py").write_text(HANDLER)
    keys = {"mounts": [str(library.parent)], "environment": {"LIBRARY": str(library)}}
    function = Function(ID, tmp_path / "app" / "handler.py", keys=keys)
    with orchestrator(function) as mesh:
        assert call(function.port).json() == {"answer": 1}
        if not awake:
            mesh.evict(ID)
        install(library, 2)
        if awake:
            assert call(function.port).json() == {"answer": 1}
            mesh.must("evict", ID)
        wait_until(lambda: remade(mesh), "the snapshot is made anew", REMADE_S)
        wait_until(lambda: mesh.contracts.deploy_state(ID) == "DEPLOYED", "deployed", REMADE_S)
        assert call(function.port).json() == {"answer": 2}
        (event,) = remade(mesh)
        assert event["metadata"]["errorReason"] == "SNAPSHOT_STALE"
        assert event["metadata"]["file"] == str(library)
        assert mesh.contracts.function(ID).revision == 1


def test_snapshots_of_another_kernel() -> None:
    """Kept over a down, they are refused by the next up and made anew, tried and served."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as mesh:
        before = call(function.port).json()["token"]
        mesh.contracts.close()
        mesh.must("down", "--keep-snapshots")
        (manifest,) = mesh.settings.snapshot_root.glob("*/manifest.json")
        written = unsealed(manifest.read_text())
        written["fingerprint"]["kernel"] = "5.10.0-older"
        manifest.write_text(sealed(written))
        mesh.up()
        wait_until(lambda: mesh.contracts.deploy_state(ID) == "DEPLOYED", "deployed", REMADE_S)
        assert call(function.port).json()["token"] != before
        (event,) = remade(mesh)
        assert event["metadata"]["errorReason"] == "SNAPSHOT_INCOMPATIBLE"
        assert event["metadata"]["expected"] == "5.10.0-older"
        assert "10 restores" in mesh.must("describe", ID).out
