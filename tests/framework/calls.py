# SPDX-License-Identifier: Apache-2.0
"""Functions that are called through their channels, and callers that keep account."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc

from aetherless.ipc.v1 import ipc_service_pb2
from aetherless_common.errors import AetherlessError
from aetherless_common.status import from_rpc_error

from .mesh import REPOSITORY, Function, Orchestrator
from .processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = REPOSITORY / "tests" / "programs" / "called" / "called.py"
#: What a handler imports; Python finds it beside the handler.
LIBRARIES = (
    REPOSITORY / "clients" / "python" / "src" / "aetherless_client",
    REPOSITORY / "services" / "ipc" / "ring" / "src" / "aetherless_ring",
)
CALL_S = 60.0
#: What a caller may be told while services die, and tries again after.
PASSING = frozenset({"PEER_UNREACHABLE", "PEER_TIMEOUT", "OPERATION_IN_PROGRESS"})
RETRY_S = 0.05


def with_client(folder: Path, program: Path = PROGRAM) -> Path:
    """Put a program and the client library into a folder; return the handler."""
    folder.mkdir()
    for library in LIBRARIES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(library, folder / library.name, ignore=ignored)
    shutil.copy(program, folder)
    return folder / program.name


def called(mesh: Orchestrator, name: str, program: Path = PROGRAM, **keys: Any) -> Function:
    """Declare a function with a channel, in a folder of its own; it is not deployed yet."""
    handler = with_client(mesh.home / name, program)
    entry = {"ipc": True, "warmup": "none", "idle_after_ms": 0, "restore_timeout_ms": 10000}
    function = Function(name, handler, keys={**entry, **keys})
    mesh.functions.append(function)
    mesh.write_config()
    return function


def invoke(
    mesh: Orchestrator, function: str, data: bytes = b"", method: str = "", timeout_s: float = 0
) -> ipc_service_pb2.InvokeResponse:
    """Call a function.

    Raises:
        AetherlessError: as the ipc service answered.
    """
    request = ipc_service_pb2.InvokeRequest(
        function=f"functions/{function}", method=method, data=data, wait_for_room=True
    )
    if timeout_s:
        request.timeout.FromNanoseconds(round(timeout_s * 1e9))
    try:
        answer = mesh.contracts.stub("ipc").Invoke(request, timeout=CALL_S, wait_for_ready=True)
    except grpc.RpcError as error:
        raise from_rpc_error(error, "ipc", "Invoke") from error
    response: ipc_service_pb2.InvokeResponse = answer
    return response


def crowd(mesh: Orchestrator, function: str, count: int) -> Sequence[str]:
    """Call a function many times at once; return what was wrong with each answer that was."""

    def one(number: int) -> str:
        data = f"{number}".encode()
        try:
            answer = invoke(mesh, function, data)
        except AetherlessError as error:
            return f"{number}: {error}"
        return "" if answer.data == data else f"{number}: {answer.data!r}"

    with ThreadPoolExecutor(count) as pool:
        return [wrong for wrong in pool.map(one, range(count)) if wrong]


class Callers:
    """Clients that call all the time, each call with data of its own. A context manager.

    Arguments:
        mesh: The orchestrator.
        function: The function that is called, with its method ``written``.
        count: How many call at the same time.
        patient: Whether a call that a dying service cut off is made again.
    """

    def __init__(
        self, mesh: Orchestrator, function: str, count: int = 4, *, patient: bool = False
    ) -> None:
        self.answered: list[str] = []
        self.wrong: list[str] = []
        self.repeated: set[str] = set()
        self._mesh, self._function, self._patient = mesh, function, patient
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call_all_the_time) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * CALL_S)

    def go_on(self, count: int = 50) -> None:
        """Return when so many more calls were answered."""
        wanted = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= wanted or self.wrong, f"{count} answers", CALL_S)

    def _call_all_the_time(self) -> None:
        while not self._ended.is_set() and not self.wrong:
            self._call(f"call-{next(self._numbers)}")

    def _call(self, name: str) -> None:
        """Make one call, and note how it ended."""
        try:
            answer = invoke(self._mesh, self._function, name.encode(), "written")
        except AetherlessError as error:
            if not self._patient or error.reason not in PASSING:
                self.wrong.append(f"{name}: {error}")
                return
            self.repeated.add(name)
            time.sleep(RETRY_S)
            self._call(name)
            return
        if answer.attempts > 1:
            self.repeated.add(name)
        if answer.data.decode() == name:
            self.answered.append(name)
        else:
            self.wrong.append(f"{name}: {answer.data!r}")
