# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802  # RPCs are named by the contract
"""The RPCs of IpcService that are about pipelines: decode, one call, encode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import ipc_service_pb2_grpc
from aetherless_common.pagination import paginate
from aetherless_ipc import pipeline_codec

if TYPE_CHECKING:
    import threading

    import grpc

    from aetherless.ipc.v1 import pipeline_pb2
    from aetherless_ipc.pipeline import Pipeline
    from aetherless_ipc.pipelines import Pipelines


class PipelineRpcs(ipc_service_pb2_grpc.IpcServiceServicer):
    """The part of the servicer that is about pipelines.

    Args:
        pipelines: the pipelines.
        lock: the broker's.
    """

    def __init__(self, pipelines: Pipelines, lock: threading.RLock) -> None:
        self._pipelines = pipelines
        self._lock = lock

    def CreatePipeline(
        self, request: pb.CreatePipelineRequest, _context: grpc.ServicerContext
    ) -> pb.CreatePipelineResponse:
        """Make a pipeline, or return the same one."""
        declaration = pipeline_codec.declaration(request.pipeline_id, request.pipeline)
        return pb.CreatePipelineResponse(pipeline=self._told(self._pipelines.create(declaration)))

    def UpdatePipeline(
        self, request: pb.UpdatePipelineRequest, _context: grpc.ServicerContext
    ) -> pb.UpdatePipelineResponse:
        """Replace a pipeline's properties."""
        name = pipeline_codec.pipeline_id("pipeline.name", request.pipeline.name)
        declaration = pipeline_codec.declaration(name, request.pipeline)
        pipeline = self._pipelines.update(declaration, allow_missing=request.allow_missing)
        return pb.UpdatePipelineResponse(pipeline=self._told(pipeline))

    def GetPipeline(
        self, request: pb.GetPipelineRequest, _context: grpc.ServicerContext
    ) -> pb.GetPipelineResponse:
        """Return one pipeline."""
        pipeline = self._pipelines.get(pipeline_codec.pipeline_id("name", request.name))
        return pb.GetPipelineResponse(pipeline=self._told(pipeline))

    def ListPipelines(
        self, request: pb.ListPipelinesRequest, _context: grpc.ServicerContext
    ) -> pb.ListPipelinesResponse:
        """Return one page of the pipelines."""

        def name(pipeline: Pipeline) -> str:
            return pipeline.pipeline_id

        every = self._pipelines.all()
        page, token = paginate(every, name, request.page_size, request.page_token)
        return pb.ListPipelinesResponse(pipelines=map(self._told, page), next_page_token=token)

    def DeletePipeline(
        self, request: pb.DeletePipelineRequest, _context: grpc.ServicerContext
    ) -> pb.DeletePipelineResponse:
        """Forget a pipeline."""
        self._pipelines.delete(pipeline_codec.pipeline_id("name", request.name))
        return pb.DeletePipelineResponse()

    def _told(self, pipeline: Pipeline) -> pipeline_pb2.Pipeline:
        """Return a pipeline as the contract has it."""
        with self._lock:
            return pipeline_codec.encode(pipeline, self._pipelines.board)
