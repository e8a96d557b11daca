# SPDX-License-Identifier: Apache-2.0
"""Serving and calling from asyncio: one thread reads, handlers are coroutines of the loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from aetherless_client.answering import answer, choose, data_of, message_of
from aetherless_client.calls import Status, current
from aetherless_client.process import call, client_of

if TYPE_CHECKING:
    import os

    from _typeshed import ReadableBuffer as Buffer

    from aetherless_client.client import Client
    from aetherless_client.work import Work

AsyncHandler = Callable[[bytes], Awaitable[bytes] | bytes]
log = logging.getLogger(__name__)


async def aserve(
    handler: AsyncHandler | Mapping[str, AsyncHandler],
    /,
    *,
    path: str | os.PathLike[str] | None = None,
    limit: int = 100,
    spin: float = 0.0,
) -> NoReturn:
    """Answer the channel's calls with coroutines; does not return. Cancel it to end it.

    Args:
        handler: from the caller's bytes to the answer's, a coroutine function or a plain one; or
            one for each method.
        path: the side socket; by default what AETHER_CHANNEL names.
        limit: how many handlers run at once.
        spin: seconds to look for a request again and again before sleeping.

    Raises:
        NoChannelError, AttachRefusedError, InvalidRegionError: as ``attach``.
    """
    find = handler.get if isinstance(handler, Mapping) else lambda _: handler
    serving = _Serving(client_of(path), find, limit)
    reader = asyncio.get_running_loop().run_in_executor(None, serving.read, spin)
    try:
        await reader
    finally:
        serving.stop()
    raise RuntimeError("the reader ended")


async def acall(
    function: str,
    data: Buffer = b"",
    *,
    method: str = "",
    timeout: float | None = None,  # noqa: ASYNC109  # it is sent with the call
    path: str | os.PathLike[str] | None = None,
) -> bytes:
    """Call another function; as ``call``, in a thread of the loop's executor."""
    return await asyncio.to_thread(call, function, data, method=method, timeout=timeout, path=path)


class _Serving:
    """The reader of one ``aserve`` and its handlers.

    Args:
        client: what is read.
        find: a method's handler.
        limit: how many handlers run at once.
    """

    def __init__(
        self, client: Client, find: Callable[[str], AsyncHandler | None], limit: int
    ) -> None:
        self._client = client
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(limit)
        self._over = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, spin: float) -> None:
        """Hand requests to the loop until it is over; runs in a thread."""
        while True:
            self._room.acquire()
            work = self._client.next_work(spin, self._over)
            if work is None:
                return
            self._loop.call_soon_threadsafe(self._start, work)

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        self._room.release()
        self._client.kick()

    def _start(self, work: Work) -> None:
        task = self._loop.create_task(self._handle(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, work: Work) -> None:
        try:
            status, data = await self._outcome(work)
            await asyncio.to_thread(answer, self._client, work, status, data)
        finally:
            self._room.release()

    async def _outcome(self, work: Work) -> tuple[Status, bytes]:
        status, handler = choose(self._find, work)
        if handler is None:
            return status, b""
        current.set(work.request)  # the task's own context
        try:
            result = handler(work.request.data)
            return Status.RESULT, data_of(await result if inspect.isawaitable(result) else result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the handler was cancelled, not only what it waited for
            return _failed(error)
        except Exception as error:  # whatever a handler raises is an answer  # noqa: BLE001
            return _failed(error)


def _failed(error: BaseException) -> tuple[Status, bytes]:
    """Return what is answered for what a handler raised."""
    log.error("the handler failed", exc_info=error)
    return Status.FAILED, message_of(error)
