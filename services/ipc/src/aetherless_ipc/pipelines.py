# SPDX-License-Identifier: Apache-2.0
"""All pipelines of an orchestrator: their edges, their runs, and the watch over both.

Locks: the broker's guards the board (who holds which end). It is never taken while a run ends, for
that may happen in any thread; the runs' table has a lock of its own, held for a step at a time.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import structlog

from aetherless_ipc import errors
from aetherless_ipc.pipeline import Delivery, Pipeline
from aetherless_ipc.records import OVER, Status
from aetherless_ipc.sparing import peer_log
from aetherless_ipc.stageboard import StageBoard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aetherless_ipc.attachment import Attachment
    from aetherless_ipc.edge import Edge
    from aetherless_ipc.edgewatch import EdgeWatch
    from aetherless_ipc.pipeline import PipelineDeclaration
    from aetherless_ipc.records import Response
    from aetherless_ipc.run import Run
    from aetherless_ipc.store import DeclarationStore
    from aetherless_ring.layout import Layout

log = structlog.get_logger()
RELEASE_LOOK_S = 0.002
# How often it is looked whether a process has let go of an edge, and whether one is drained; and
# how often the stages are seen to otherwise, so that none falls asleep meanwhile.
BUSY_LOOK_S = 0.005
IDLE_LOOK_S = 0.15
# Of the name that a peer gives an edge, in the log.
LONGEST_EDGE = 200


class Pipelines:
    """Keeps the pipelines; safe to call from any thread.

    Args:
        store: where the declarations are kept.
        layout: that of the edges' regions.
        lock: the broker's.
        watch: minds edges that nobody reads.
        used: told of each attachment that a run passes, every now and then.
    """

    def __init__(
        self,
        store: DeclarationStore[PipelineDeclaration],
        layout: Layout,
        lock: threading.RLock,
        watch: EdgeWatch,
        used: Callable[[Attachment], None],
    ) -> None:
        self._store = store
        self._lock = lock
        self._watch = watch
        self._used = used
        self._pipelines: dict[str, Pipeline] = {}
        self._runs: dict[int, Run] = {}
        self._runs_lock = threading.Lock()
        self._epochs = itertools.count()
        self.board = StageBoard(layout, watch, self._end_taken)

    def start(self) -> None:
        """Make the pipelines anew that were declared before; their runs ended with the service.

        Raises:
            DataLoss: STORE_CORRUPT.
        """
        with self._lock:
            for declaration in self._store.load():
                self._add(declaration)
            self._watch.start(self._see_to)

    def stop(self) -> None:
        """Let go of all edges; the declarations stay. Runs under way end with STAGE_LOST."""
        self._watch.stop()
        with self._lock:
            ended = [run for each in self.all() for run in self._take_away(each)]
        _lose(ended)

    def get(self, pipeline_id: str) -> Pipeline:
        """Return a pipeline.

        Raises:
            NotFound: PIPELINE_NOT_FOUND.
        """
        pipeline = self._pipelines.get(pipeline_id)
        if pipeline is None:
            raise errors.pipeline_not_found(pipeline_id)
        return pipeline

    def all(self) -> list[Pipeline]:
        """Return the pipelines, in no order."""
        with self._lock:
            return list(self._pipelines.values())

    def create(self, declaration: PipelineDeclaration) -> Pipeline:
        """Make a pipeline, or return the one that exists with the same properties.

        Raises:
            AlreadyExists: PIPELINE_EXISTS.
            FailedPrecondition: REGION_INVALID.
        """
        with self._lock:
            existing = self._pipelines.get(declaration.pipeline_id)
            if existing is None:
                return self._add(declaration, save=True)
        if existing.declared != declaration:
            raise errors.pipeline_exists(declaration.pipeline_id)
        return existing

    def update(self, declaration: PipelineDeclaration, *, allow_missing: bool) -> Pipeline:
        """Replace what is declared; its runs end with STAGE_LOST when its stages change.

        Raises:
            NotFound: PIPELINE_NOT_FOUND.
            FailedPrecondition: REGION_INVALID.
        """
        with self._lock:
            existing = self._pipelines.get(declaration.pipeline_id)
            if existing is None and not allow_missing:
                raise errors.pipeline_not_found(declaration.pipeline_id)
            if existing is not None and existing.declared == declaration:
                return existing
            if existing is not None and existing.declared.same_way_as(declaration):
                existing.become_declared(declaration)
                self._save()
                return existing
            ended = self._take_away(existing) if existing else []
            pipeline = self._add(declaration, save=True)
        _lose(ended)
        return pipeline

    def delete(self, pipeline_id: str) -> None:
        """Forget a pipeline; its runs end with STAGE_LOST.

        Raises:
            NotFound: PIPELINE_NOT_FOUND.
        """
        with self._lock:
            ended = self._take_away(self.get(pipeline_id))
            self._save()
        _lose(ended)

    def begin(self, run: Run) -> None:
        """Take a run on."""
        with self._runs_lock:
            self._runs[run.id] = run
            run.pipeline.runs[run.id] = run
        run.pipeline.stats.begun(run)

    def forget(self, run: Run) -> None:
        """Take note that a run is over: count it, and have what is left of it dropped."""
        pipeline = run.pipeline
        with self._runs_lock:
            self._runs.pop(run.id, None)
            pipeline.runs.pop(run.id, None)
            pipeline.count_end(run)
        run.leg.settle()
        if run.error is not None or run.losses != pipeline.losses:
            self._tell_over(pipeline, run.id)

    def answered(self, attachment: Attachment, response: Response) -> bool:
        """Take an answer of a stage; False when it is nobody's."""
        if response.status == Status.EDGE_DAMAGED:
            self._damaged(attachment, response.data.decode(errors="replace"))
            return True
        run = self._runs.get(response.id)
        number = response.stage - 1
        if run is None or not 0 <= number < len(run.pipeline.stages):
            return False
        if run.pipeline.stages[number].function_id != attachment.channel_id:
            peer_log.warning(
                "answer of another's stage", instance=attachment.instance, run=response.id
            )
            return False
        return run.take(number, response.status, response.data)

    def lead(self, function_id: str, attachment: Attachment | None) -> None:
        """Take note of where a function's calls go; with the broker's lock held."""
        try:
            self.board.lead(function_id, attachment)
        except OSError:
            log.exception("edges not handed out", function=function_id)

    def attached(self, attachment: Attachment) -> None:
        """Hear that a peer was let in: it stands for something once calls go to it."""

    def ended(self, attachment: Attachment) -> None:
        """Hear that a peer is gone; with the broker's lock held."""
        self.lost(attachment)

    def await_release(self, attachment: Attachment, seconds: float) -> bool:
        """Wait until a process that was retired reads no edge; False when that lasts too long."""
        until = time.monotonic() + seconds
        pause = threading.Event()
        while True:
            with self._lock:
                if self.board.is_retired(attachment.channel_id, attachment):
                    return True
            if time.monotonic() >= until:
                return False
            pause.wait(RELEASE_LOOK_S)

    def lost(self, attachment: Attachment) -> None:
        """Take note that an attachment ended; with the broker's lock held."""
        function_id = attachment.channel_id
        for pipeline in self._pipelines.values():
            if pipeline.number_of(function_id) is not None:
                pipeline.losses += 1
        self.board.lose(function_id, attachment)

    def _end_taken(self, edge: Edge, taken: list[int]) -> None:
        """End the runs that a reader had taken to itself; with the broker's lock held."""
        pipeline = self.board.pipeline(edge.name.partition("/")[0])
        number = pipeline.number_of(edge.reader) if pipeline else None
        if pipeline and number is not None and pipeline.delivery is Delivery.AT_MOST_ONCE:
            found = [pipeline.runs.get(run) for run in taken]
            _lose([run for run in found if run is not None], number)

    def rouse(self, pipeline: Pipeline) -> None:
        """Wake the stages of a pipeline that sleep; those that do not are in use now.

        The first one is woken by its call.
        """
        for stage in pipeline.stages:
            holder = self.board.holder(stage.function_id)
            if holder is not None:
                self._used(holder)
            elif stage is not pipeline.stages[0]:
                self._watch.rouse(stage.function_id)

    def _see_to(self) -> float:
        """Look after edges and stages; return when to do it again. With the broker's lock held."""
        busy = self.board.look()
        for pipeline in self._pipelines.values():
            if pipeline.runs:
                self.rouse(pipeline)
        return BUSY_LOOK_S if busy else IDLE_LOOK_S

    def _add(self, declaration: PipelineDeclaration, *, save: bool = False) -> Pipeline:
        """Make a pipeline and its edges."""
        pipeline = Pipeline(declaration, next(self._epochs))
        try:
            self.board.add(pipeline)
        except OSError as error:
            self.board.remove(pipeline)
            raise errors.region_invalid(declaration.pipeline_id, error) from error
        self._pipelines[declaration.pipeline_id] = pipeline
        if save:
            self._save()
        return pipeline

    def _take_away(self, pipeline: Pipeline) -> list[Run]:
        """Undo ``_add``; return its runs."""
        self.board.remove(pipeline)
        del self._pipelines[pipeline.pipeline_id]
        with self._runs_lock:
            return list(pipeline.runs.values())

    def _save(self) -> None:
        self._store.save(pipeline.declared for pipeline in self._pipelines.values())

    def _damaged(self, attachment: Attachment, edge_name: str) -> None:
        """Replace an edge that a peer of one of its ends found damaged; end the runs."""
        with self._lock:
            pipeline = self.board.pipeline(edge_name.partition("/")[0])
            number = pipeline.number_of(attachment.channel_id) if pipeline else None
            if pipeline is None or number is None or not self.board.touches(edge_name, attachment):
                peer_log.warning(
                    "another's edge", instance=attachment.instance, edge=edge_name[:LONGEST_EDGE]
                )
                return
            peer_log.error("edge damaged", instance=attachment.instance, edge=edge_name)
            self.board.replace(edge_name)
            with self._runs_lock:
                runs = list(pipeline.runs.values())
        for run in runs:
            run.fail_at(number, errors.edge_corrupt(pipeline.pipeline_id, edge_name))

    def _tell_over(self, pipeline: Pipeline, run_id: int) -> None:
        """Have stages with several inputs drop what they have of a run."""
        for function_id in pipeline.gathering():
            holder = self.board.holder(function_id)
            if holder is not None:
                holder.respond(run_id.to_bytes(8, "little"), OVER)


def _lose(runs: Iterable[Run], number: int = 0) -> None:
    """End runs whose records are gone."""
    for run in runs:
        run.lose(number)
