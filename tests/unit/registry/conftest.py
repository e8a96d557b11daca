# SPDX-License-Identifier: Apache-2.0
"""What the registry's tests share: a registry beside fake services, and transcripts.

A transcript is a text of commands and what they answered, apart by ``----``. With ``--rewrite``
(``pytest tests/unit/registry --rewrite``) the answers are written anew; review the difference.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import function_pb2
from aetherless_common.server import serving
from aetherless_common.settings import Settings
from aetherless_registry.service import RegistryService
from framework.fake_host import FakeHost
from framework.fake_services import FakeServices
from framework.registry_client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes transcripts anew."""
    parser.addoption("--rewrite", action="store_true", help="write the transcripts anew")


@pytest.fixture
def transcript(request: pytest.FixtureRequest) -> Callable[[Path, Callable[[str], str]], None]:
    """Give what plays a transcript: it runs each command and compares, or rewrites, the answers."""

    def play(path: Path, run: Callable[[str], str]) -> None:
        written = path.read_text()
        played = "\n\n".join(_played(block, run) for block in written.strip().split("\n\n")) + "\n"
        if request.config.getoption("--rewrite", default=False):
            path.write_text(played)
        assert played == path.read_text()

    return play


def _played(block: str, run: Callable[[str], str]) -> str:
    """Return a block with the answer that its command gets now."""
    lines = block.splitlines()
    command = list(itertools.takewhile(lambda line: line != "----", lines))
    spoken = [line for line in command if not line.startswith("#")]
    if not spoken:
        return block
    answers = [run(line) for line in spoken]
    return "\n".join([*command, "----", *[answer for answer in answers if answer]])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give the settings of an orchestrator of the test's own."""
    folders = {"AETHER_RUNTIME_DIR": str(tmp_path / "r"), "AETHER_STATE_DIR": str(tmp_path / "s")}
    loaded = Settings.load(folders)
    loaded.make_folders()
    return loaded


@pytest.fixture
def host() -> FakeHost:
    """Give an empty fake host."""
    return FakeHost()


@pytest.fixture
def services(settings: Settings, host: FakeHost) -> Iterator[FakeServices]:
    """Give the fake host's services, up."""
    fakes = FakeServices(settings, host)
    fakes.start("snapshotter")
    fakes.start("netplane")
    fakes.start("ipc")
    yield fakes
    host.holds.set()
    fakes.stop_all()


@pytest.fixture
def spec() -> Callable[..., function_pb2.FunctionSpec]:
    """Give what makes a right declaration; its arguments change fields."""

    def make(function_id: str = "hello", **fields: Any) -> function_pb2.FunctionSpec:
        made = function_pb2.FunctionSpec(
            function_id=function_id,
            handler_path="/srv/hello.py",
            memory_limit_mb=128,
            trigger_port=8080,
            warmup_kind=function_pb2.WARMUP_KIND_HTTP,
        )
        made.timeout.FromMilliseconds(2000)
        made.restore_timeout.FromMilliseconds(15)
        made.MergeFrom(function_pb2.FunctionSpec(**fields))
        return made

    return make


@pytest.fixture
def registry(settings: Settings, services: FakeServices) -> Iterator[RegistryClient]:
    """Give a client of a real registry, on a real file, beside the fake services."""
    assert services.stacks
    service = RegistryService(settings)
    service.start()
    with serving(settings, "registry", service):
        client = RegistryClient(settings)
        yield client
        client.close()
