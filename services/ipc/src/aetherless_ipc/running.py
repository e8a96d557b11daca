# SPDX-License-Identifier: Apache-2.0
"""From a request for a run to a run that is on its way, for callers of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aetherless_common import tracing
from aetherless_common.errors import AetherlessError, invalid_argument
from aetherless_ipc import pipeline_codec
from aetherless_ipc.run import AwaitedRun, Run, ToldRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.ipc.v1 import ipc_service_pb2 as pb
    from aetherless_common.tracing import Span
    from aetherless_ipc.broker import Broker
    from aetherless_ipc.calls import Call
    from aetherless_ipc.channel import Channel
    from aetherless_ipc.invoking import Invoker
    from aetherless_ipc.pipeline import Pipeline
    from aetherless_ipc.pipelines import Pipelines

# How often it is looked whether the last stage is attached by now.
LOOK_S = 0.05
R = TypeVar("R", bound=Run)


class Runner:
    """Makes runs.

    Args:
        broker: has the channels.
        invoker: knows which of them can be called.
        pipelines: has the pipelines.
    """

    def __init__(self, broker: Broker, invoker: Invoker, pipelines: Pipelines) -> None:
        self._broker = broker
        self._invoker = invoker
        self._pipelines = pipelines

    def awaited(self, request: pb.InvokeRequest) -> AwaitedRun:
        """Return the run that a request asks for, to be made by this thread.

        Raises:
            AetherlessError: PIPELINE_NOT_FOUND, INVALID_ARGUMENT, PAYLOAD_TOO_LARGE; and of any
                stage CHANNEL_NOT_FOUND or CHANNEL_NOT_READY.
        """
        return self._made(AwaitedRun, request, tracing.current())

    def told(self, request: pb.InvokeRequest, span: Span, told: Callable[[Call], None]) -> ToldRun:
        """Return the run that a request asks for, whose end is told.

        Raises:
            AetherlessError: as ``awaited``.
        """
        return self._made(ToldRun, request, span, told=told)

    def begin(self, run: ToldRun) -> None:
        """Make a run that ends at its deadline by itself."""
        self._broker.rings.watch(run)
        self._send(run)

    def finish(self, run: AwaitedRun) -> None:
        """Make a run and wait for its end, reading what the last stage writes meanwhile.

        Raises:
            AetherlessError: how it ended, if not by a result.
        """
        self._send(run)
        last = run.pipeline.stages[-1].function_id
        while not run.is_over:
            holder = self._pipelines.board.holder(last)
            if holder is not None:
                holder.wait(run)
            left = run.time_left()
            if left <= 0:
                run.expire()
            elif not run.is_over:
                run.park(min(left, LOOK_S))
        if run.error is not None:
            raise run.error

    def _made(self, kind: type[R], request: pb.InvokeRequest, span: Span, **how: object) -> R:
        """Return a run of a kind, checked."""
        pipeline, timeout = self._read(request)
        run = kind(
            pipeline,
            request.data,
            timeout,
            patient=request.wait_for_room,
            span=span,
            forget=self._pipelines.forget,
            **how,
        )
        self._check(run)
        return run

    def _read(self, request: pb.InvokeRequest) -> tuple[Pipeline, float]:
        """Return the pipeline and the time of a request."""
        pipeline = self._pipelines.get(pipeline_codec.pipeline_id("pipeline", request.pipeline))
        if request.method:
            raise invalid_argument("method", "a pipeline has none; its stages declare theirs")
        return pipeline, self._invoker.seconds(request, pipeline.declared.timeout_ms)

    def _check(self, run: Run) -> None:
        """Refuse a run that can't be: a stage that nobody stands for, data that no record holds."""
        channels = [self._invoker.channel(stage.function_id) for stage in run.pipeline.stages]
        self._invoker.check_length(channels[0], run.leg)

    def _send(self, run: Run) -> None:
        """Give the first stage the run's data; wake the others that sleep."""
        pipelines, pipeline = self._pipelines, run.pipeline
        pipelines.begin(run)
        pipelines.rouse(pipeline)
        channel: Channel = self._broker.get(pipeline.stages[0].function_id)
        try:
            channel.delivery.submit(run.leg)
        except AetherlessError as error:
            run.fail(error)  # nothing, when the leg has told already
