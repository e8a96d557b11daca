# SPDX-License-Identifier: Apache-2.0
"""What a registry is given of the Python client works: built, unpacked, run with nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from aetherless_ring.layout import RecordType
from framework.channel_edges import Carried
from framework.channel_peers import CLIENTS
from framework.channel_service import Answer, Service, request
from framework.programs import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"ring": REPOSITORY / "services" / "ipc" / "ring", "client": CLIENTS / "python"}
README = CLIENTS / "python" / "README.md"
CALL = 6


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both packages, the wheel out of the source archive; return where they are unpacked."""
    folder = tmp_path_factory.mktemp("packages")
    uv = Path(sys.executable).with_name("uv")
    for name, source in PACKAGES.items():
        ignored = shutil.ignore_patterns("*.so", "build", "*.egg-info", "__pycache__")
        copy = shutil.copytree(source, folder / name, ignore=ignored)
        options = ["--offline", "--no-build-isolation", "--python", sys.executable]
        command = [str(uv), "build", *options, str(copy), "-o", str(folder / "out")]
        subprocess.run(command, check=True, capture_output=True, timeout=200)
    for wheel in (folder / "out").glob("*.whl"):
        with ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    return folder


@contextmanager
def example(installed: Path, folder: Path, number: int, **environment: str) -> Iterator[Service]:
    """Run an example of the README against a service."""
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[number]
    (folder / "handler.py").write_text(code.replace("8080", "0"))
    path = folder / "side.sock"
    settings = {"AETHER_CHANNEL": str(path), "PYTHONPATH": str(installed / "site"), **environment}
    with (
        Service(path) as service,
        subprocess.Popen(
            [sys.executable, "-S", str(folder / "handler.py")], env=settings
        ) as handler,
    ):
        try:
            yield service
        finally:
            handler.kill()


def test_the_archives_are_whole(installed: Path) -> None:
    """One wheel for every CPython from 3.11 on, with the extension; types and README."""
    names = sorted(path.name for path in (installed / "out").iterdir() if path.suffix == ".whl")
    assert names[0] == "aetherless_client-0.1.0-py3-none-any.whl"
    assert names[1].startswith("aetherless_ring-0.1.0-cp311-abi3-linux_")
    site = installed / "site"
    assert list((site / "aetherless_ring").glob("_native*.so"))
    for package in ("aetherless_client", "aetherless_ring"):
        assert (site / package / "py.typed").exists()
    metadata = (site / "aetherless_client-0.1.0.dist-info" / "METADATA").read_text()
    assert "Requires-Dist: aetherless-ring" in metadata
    assert "aetherless_client.serve" in metadata


def test_the_first_example(installed: Path, tmp_path: Path) -> None:
    """A function from bytes to bytes."""
    with example(installed, tmp_path, 0) as service:
        assert service.call(service.attached(), b"some data").data == b"SOME DATA"


def reply_to(service: Service, number: int, results: dict[str, bytes]) -> Answer:
    """Call the example, answer the calls that it makes by their names, return its answer."""
    side = service.attached()
    side.send(request(number, b"image"))
    for _ in results:
        kind, payload = side.receive()
        assert kind == CALL
        call = Carried.parse(payload)
        head = call.run.to_bytes(8, "little") + bytes(8)
        side.send(head + call.data + results[call.method], RecordType.RESPONSE)
    return side.answer()


def test_the_example_that_calls(installed: Path, tmp_path: Path) -> None:
    """Two other functions, one after the other."""
    with example(installed, tmp_path, 1) as service:
        answer = reply_to(service, 5, {"resize": b" small", "encode/png": b" encoded"})
        assert answer == Answer(5, 0, b"image small encoded")


def test_the_example_beside_http(installed: Path, tmp_path: Path) -> None:
    """The loop runs in a thread of a program that serves HTTP."""
    with example(installed, tmp_path, 2) as service:
        assert service.call(service.attached(), b"some data").data == b"SOME DATA"


def test_the_example_for_asyncio(installed: Path, tmp_path: Path) -> None:
    """Two calls at once."""
    with example(installed, tmp_path, 3) as service:
        answer = reply_to(service, 5, {"resize/small": b" small", "resize/tiny": b" tiny"})
        assert answer == Answer(5, 0, b"image smallimage tiny")
