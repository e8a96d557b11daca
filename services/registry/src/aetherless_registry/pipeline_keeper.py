# SPDX-License-Identifier: Apache-2.0
"""Keeps the ipc service's pipelines to what is stored: level-triggered, by a thread of its own."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from aetherless.ipc.v1 import ipc_service_pb2, ipc_service_pb2_grpc
from aetherless.ipc.v1 import pipeline_pb2 as ipc_pb2
from aetherless.registry.v1 import pipeline_pb2
from aetherless_common.channels import connect
from aetherless_common.errors import AetherlessError
from aetherless_common.stages import of_messages
from aetherless_registry import names
from aetherless_registry.peers import pages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aetherless_common.settings import Settings
    from aetherless_registry.store import Store

log = structlog.get_logger()
RESYNC_PERIOD_S = 30.0
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0
JOIN_S = 3.0
_DELIVERIES = {
    pipeline_pb2.DELIVERY_UNSPECIFIED: ipc_pb2.DELIVERY_AT_LEAST_ONCE,
    pipeline_pb2.DELIVERY_AT_LEAST_ONCE: ipc_pb2.DELIVERY_AT_LEAST_ONCE,
    pipeline_pb2.DELIVERY_AT_MOST_ONCE: ipc_pb2.DELIVERY_AT_MOST_ONCE,
}


class PipelineKeeper:
    """Declares what is stored, and removes what is not, whenever they may differ.

    Args:
        settings: where the ipc service is.
        store: what is stored.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._channel = connect(settings, "ipc")
        self._ipc = ipc_service_pb2_grpc.IpcServiceStub(self._channel)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pipelines", daemon=True)

    def start(self) -> None:
        """Begin, with a look at once."""
        self._thread.start()

    def declared(self) -> None:
        """Look soon: what is stored changed."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._channel.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        delay = FIRST_RETRY_S
        while not self._stopping:
            self._wake.clear()
            try:
                self._settle()
            except AetherlessError as error:
                log.info("pipelines not declared yet", cause=str(error), delay_s=delay)
                self._wake.wait(delay)
                delay = min(2 * delay, LAST_RETRY_S)
            except Exception:
                if not self._stopping:  # else the store is being closed under us
                    log.exception("pipelines not declared")
                    self._wake.wait(LAST_RETRY_S)
            else:
                delay = FIRST_RETRY_S
                self._wake.wait(RESYNC_PERIOD_S)

    def _settle(self) -> None:
        """Make the two equal.

        Raises:
            AetherlessError: the service refuses, or does not answer.
        """
        wanted, there = self._wanted(), self._there()
        for name in there.keys() - wanted.keys():
            self._ipc.DeletePipeline(ipc_service_pb2.DeletePipelineRequest(name=name))
        for name, pipeline in wanted.items():
            if there.get(name) != pipeline:
                request = ipc_service_pb2.UpdatePipelineRequest(
                    pipeline=pipeline, allow_missing=True
                )
                self._ipc.UpdatePipeline(request)

    def _wanted(self) -> Mapping[str, ipc_pb2.Pipeline]:
        stored = self._store.pipelines().values()
        specs = (pipeline_pb2.PipelineSpec.FromString(data) for data in stored)
        return {names.PIPELINES + spec.pipeline_id: _declaration(spec) for spec in specs}

    def _there(self) -> Mapping[str, ipc_pb2.Pipeline]:
        """Return what the service has, by name, without what it says of it."""
        listing = partial(self._ipc.ListPipelines, wait_for_ready=True)
        found = pages(listing, ipc_service_pb2.ListPipelinesRequest(), "pipelines")
        return {each.name: _bare(each) for each in found}


def _declaration(spec: pipeline_pb2.PipelineSpec) -> ipc_pb2.Pipeline:
    """Return a stored pipeline as the ipc service takes it."""
    return ipc_pb2.Pipeline(
        name=names.PIPELINES + spec.pipeline_id,
        stages=[
            _stage(each.stage_id, each.function_id, each.method, each.sources)
            for each in of_messages(spec.stages)
        ],
        timeout=spec.timeout,
        delivery=_DELIVERIES[spec.delivery],
    )


def _bare(pipeline: ipc_pb2.Pipeline) -> ipc_pb2.Pipeline:
    """Return a pipeline as it was declared."""
    return ipc_pb2.Pipeline(
        name=pipeline.name,
        stages=[
            _stage(each.stage_id, each.function_id, each.method, getattr(each, "from"))
            for each in pipeline.stages
        ],
        timeout=pipeline.timeout,
        delivery=pipeline.delivery,
    )


def _stage(stage_id: str, function_id: str, method: str, sources: Any) -> ipc_pb2.Stage:
    made = ipc_pb2.Stage(stage_id=stage_id, function_id=function_id, method=method)
    getattr(made, "from").extend(sources)  # a word of Python's
    return made
