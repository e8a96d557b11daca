# SPDX-License-Identifier: Apache-2.0
"""Which process stands for which stage, and which ends of edges it holds.

A function's calls go to one of its instances; the process of that one stands for the function's
stages in every pipeline. Others that are attached (a golden, a revision that is replaced) hold no
stage. Whoever calls holds the lock that the sockets' thread holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from aetherless_common.stages import edges
from aetherless_ipc.edge import Edge
from aetherless_ipc.edgeregion import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.stages import Stage
    from aetherless_ipc.attachment import Attachment
    from aetherless_ipc.edgewatch import EdgeWatch
    from aetherless_ipc.pipeline import Pipeline
    from aetherless_ring.layout import Layout

log = structlog.get_logger()


class StageBoard:
    """The edges of all pipelines, and who holds them.

    Args:
        layout: that of the edges' regions.
        watch: minds edges that nobody reads.
        taken: told the runs that a reader of an edge had taken to itself and will not finish.
    """

    def __init__(
        self, layout: Layout, watch: EdgeWatch, taken: Callable[[Edge, list[int]], None]
    ) -> None:
        self._layout = layout
        self._watch = watch
        self._taken = taken
        self._pipelines: dict[str, Pipeline] = {}
        self.edges: dict[str, list[Edge]] = {}
        self._holders: dict[str, Attachment] = {}

    def add(self, pipeline: Pipeline) -> None:
        """Make a pipeline's edges, and tell the processes that stand for its stages.

        Raises:
            OSError: a region could not be made.
        """
        self._pipelines[pipeline.wire_name] = pipeline
        name = pipeline.wire_name
        self.edges[name] = [
            Edge(name, arc, pipeline.stage(arc.target).function_id, self._layout, self._watch)
            for arc in edges(pipeline.stages)
        ]
        held = [
            (stage, self._holders[stage.function_id])
            for stage in pipeline.stages
            if stage.function_id in self._holders
        ]
        for stage, holder in held:
            self._tell(pipeline, stage, holder)
        for stage, holder in held:
            self._hand_out(pipeline, stage, holder)

    def remove(self, pipeline: Pipeline) -> None:
        """Let go of a pipeline's edges, and tell whoever held a stage of it."""
        for edge in self.edges.pop(pipeline.wire_name):
            edge.drop_all()
        del self._pipelines[pipeline.wire_name]
        for stage in pipeline.stages:
            holder = self._holders.get(stage.function_id)
            if holder is not None:
                tell(holder, f"stage-drop pipeline={pipeline.wire_name} stage={stage.stage_id}")

    def pipeline(self, wire_name: str) -> Pipeline | None:
        """Return a pipeline by the name that stages know."""
        return self._pipelines.get(wire_name)

    def holder(self, function_id: str) -> Attachment | None:
        """Return the process that stands for a function."""
        return self._holders.get(function_id)

    def lead(self, function_id: str, peer: Attachment | None) -> None:
        """Let a process stand for a function, or none; the one before reads no more.

        Raises:
            OSError: a region could not be made.
        """
        if self._holders.get(function_id) is not peer:
            self.retire(function_id)
            if peer is not None:
                self.join(function_id, peer)

    def join(self, function_id: str, peer: Attachment) -> None:
        """Let a process stand for a function, after the one before was retired or lost.

        Raises:
            OSError: a region could not be made.
        """
        self._holders[function_id] = peer
        stages = list(self._stages_of(function_id))
        for pipeline, stage in stages:
            self._tell(pipeline, stage, peer)
        for pipeline, stage in stages:  # what it reads is handed out for all of them at once
            self._hand_out(pipeline, stage, peer)

    def retire(self, function_id: str) -> None:
        """Ask the process that stands for a function to read no more; it may finish and write."""
        peer = self._holders.pop(function_id, None)
        if peer is not None:
            for edge in self._read_by(function_id):
                edge.recall(peer)
            self._watch.look_soon()

    def is_retired(self, function_id: str, peer: Attachment) -> bool:
        """Tell whether a process reads no edge any more."""
        self.settle(function_id)
        return not any(edge.is_read_by(peer) for edge in self._read_by(function_id))

    def lose(self, function_id: str, peer: Attachment) -> None:
        """Take note that a process is gone."""
        if self._holders.get(function_id) is peer:
            del self._holders[function_id]
        for pipeline, stage in self._stages_of(function_id):
            for edge in self.edges[pipeline.wire_name]:
                if stage.stage_id in (edge.arc.source, edge.arc.target):
                    self._taken(edge, edge.lose(peer))
        self.settle(function_id)

    def settle(self, function_id: str) -> None:
        """Hand every region that a function's stages could read and nobody reads to its process."""
        holder = self._holders.get(function_id)
        for edge in self._read_by(function_id):
            self._taken(edge, edge.take_released())
            if holder is not None:
                for region in edge.orphans():
                    edge.give(region, holder)

    def look(self) -> bool:
        """Hand over what was let go of, drop what is drained, wake whom something waits for.

        Returns whether more of the first two is to be expected soon.
        """
        busy = False
        for name, every in self.edges.items():
            pipeline = self._pipelines[name]
            for edge in every:
                function_id = pipeline.stage(edge.arc.target).function_id
                if edge.leaving():
                    self.settle(function_id)
                busy |= edge.drop_drained() or bool(edge.leaving())
                if any(not region.is_empty for region in edge.orphans()):
                    self._watch.rouse(function_id)
        return busy

    def touches(self, edge_name: str, peer: Attachment) -> bool:
        """Tell whether a process has an end of an edge."""
        every = (edge for edges_of_one in self.edges.values() for edge in edges_of_one)
        return any(edge.name == edge_name and edge.is_held_by(peer) for edge in every)

    def replace(self, edge_name: str) -> None:
        """Let both ends of a damaged edge go, and give them new regions.

        Raises:
            OSError: a region could not be made.
        """
        for edges_of_one in self.edges.values():
            for edge in edges_of_one:
                if edge.name == edge_name:
                    self._remake(edge)

    def _remake(self, edge: Edge) -> None:
        pipeline = self._pipelines[edge.name.partition("/")[0]]
        for producer in edge.drop_all():
            edge.add_producer(producer)
        self.settle(pipeline.stage(edge.arc.target).function_id)

    def _tell(self, pipeline: Pipeline, stage: Stage, peer: Attachment) -> None:
        """Tell a process that it stands for a stage."""
        outputs = sum(stage.stage_id in each.sources for each in pipeline.stages)
        tell(
            peer,
            f"stage pipeline={pipeline.wire_name} stage={stage.stage_id}"
            f" number={pipeline.stages.index(stage)} inputs={len(stage.sources)}"
            f" outputs={outputs} delivery={pipeline.delivery.value} method={stage.method}",
        )

    def _hand_out(self, pipeline: Pipeline, stage: Stage, peer: Attachment) -> None:
        """Hand a process that stands for a stage the ends of its edges."""
        for edge in self.edges[pipeline.wire_name]:
            if edge.arc.source == stage.stage_id and not edge.is_written_by(peer):
                edge.add_producer(peer)
                self.settle(pipeline.stage(edge.arc.target).function_id)
        self.settle(stage.function_id)

    def _stages_of(self, function_id: str) -> Iterator[tuple[Pipeline, Stage]]:
        for pipeline in self._pipelines.values():
            for stage in pipeline.stages:
                if stage.function_id == function_id:
                    yield pipeline, stage

    def _read_by(self, function_id: str) -> Iterator[Edge]:
        for pipeline, stage in self._stages_of(function_id):
            for edge in self.edges[pipeline.wire_name]:
                if edge.arc.target == stage.stage_id:
                    yield edge
