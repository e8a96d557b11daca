# SPDX-License-Identifier: Apache-2.0
"""One InvokeStream: many calls of one caller under way at once, answered in any order."""

from __future__ import annotations

import queue
import threading
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from google.protobuf import duration_pb2

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError, internal
from aetherless_common.status import to_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_ipc.calls import Call
    from aetherless_ipc.invoking import Invoker
    from aetherless_ipc.running import Runner

log = structlog.get_logger()
MOST_UNDER_WAY = 1024
DOMAIN = "ipc.aetherless"


class InvokeStream:
    """Reads calls in one thread and hands their ends out in another.

    Args:
        invoker: makes the calls.
        runner: makes the runs of pipelines.
        requests: what the caller sends.
        context: gRPC's, of the stream.
    """

    def __init__(
        self,
        invoker: Invoker,
        runner: Runner,
        requests: Iterator[pb.InvokeStreamRequest],
        context: grpc.ServicerContext,
    ) -> None:
        self._invoker = invoker
        self._runner = runner
        self._requests = requests
        self._context = context
        self._span = tracing.current()
        self._room = threading.Semaphore(MOST_UNDER_WAY)
        self._ended: queue.SimpleQueue[pb.InvokeStreamResponse | None] = queue.SimpleQueue()
        self._under_way: dict[int, Call] = {}
        self._numbers = iter(range(1 << 62))
        self._left = False

    def answers(self) -> Iterator[pb.InvokeStreamResponse]:
        """Yield the end of each call, until the caller sends no more and all have ended."""
        if not self._context.add_callback(self._leave):
            self._leave()  # the caller has left already
        reader = threading.Thread(target=self._read, name="invoke-stream", daemon=True)
        reader.start()
        while (answer := self._ended.get()) is not None:
            self._room.release()
            yield answer

    def _read(self) -> None:
        """Make the calls that are asked for; then wait for the last ones."""
        try:
            for request in self._requests:
                self._room.acquire()
                if self._left:
                    break
                self._begin(request)
        except grpc.RpcError as error:  # how the iterator says that the caller left
            log.debug("stream ended", error=str(error))
        except Exception:
            log.exception("stream not read")
        for _ in range(MOST_UNDER_WAY):
            self._room.acquire()
        self._ended.put(None)

    def _begin(self, request: pb.InvokeStreamRequest) -> None:
        """Make one call."""
        number, call_id = next(self._numbers), request.call_id

        def told(call: Call) -> None:
            self._under_way.pop(number, None)
            self._ended.put(_answer(call_id, call))

        try:
            call, begin = self._prepared(request.call, told)
        except AetherlessError as error:
            self._ended.put(_refusal(call_id, error))
            return
        self._under_way[number] = call
        if self._left:  # looked at last, as the leave looks at the calls last
            call.cancel()
            return
        try:
            begin()
        except AetherlessError as error:
            call.fail(error)

    def _prepared(
        self, request: pb.InvokeRequest, told: Callable[[Call], None]
    ) -> tuple[Call, Callable[[], None]]:
        """Return the call, or the run, that a request asks for, and what makes it."""
        if request.pipeline:
            run = self._runner.told(request, self._span, told)
            return run, partial(self._runner.begin, run)
        channel, call = self._invoker.told(request, self._span, told)
        return call, partial(self._invoker.begin, channel, call)

    def _leave(self) -> None:
        """End the calls of a caller that left, and the reading; at the stream's end all is over."""
        self._left = True
        self._room.release(MOST_UNDER_WAY + 1)
        for call in list(self._under_way.values()):
            call.cancel()


def encode(call: Call) -> pb.InvokeResponse:
    """Return a call's result as the contract has it."""
    seconds, nanos = divmod(round(call.elapsed * 1e9), 1_000_000_000)
    return pb.InvokeResponse(
        data=call.result,
        attempts=call.attempts,
        woke=call.woke,
        elapsed=duration_pb2.Duration(seconds=seconds, nanos=nanos),
    )


def _answer(call_id: int, call: Call) -> pb.InvokeStreamResponse:
    """Return how a call ended."""
    if call.error is not None:
        return _refusal(call_id, call.error)
    return pb.InvokeStreamResponse(call_id=call_id, response=encode(call))


def _refusal(call_id: int, error: AetherlessError) -> pb.InvokeStreamResponse:
    """Return an error as the end of a call."""
    answer = pb.InvokeStreamResponse(call_id=call_id)
    answer.error.Pack(to_status(error if error.reason != "INTERNAL" else internal(), DOMAIN))
    return answer
