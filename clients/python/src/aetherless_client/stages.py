# SPDX-License-Identifier: Apache-2.0
"""The stages of pipelines that this process is: their edges, and the records that reach them."""

from __future__ import annotations

import logging
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from aetherless_client.calls import join
from aetherless_client.edges import Held, Input, Output
from aetherless_client.errors import InvalidRegionError
from aetherless_client.region import close_all, map_region
from aetherless_ring import RingClosedError, RingCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_client.calls import Request
    from aetherless_client.lines import Line
    from aetherless_client.region import Region

log = logging.getLogger(__name__)
# Runs that a stage with several inputs remembers as finished.
FINISHED_RUNS = 4096
# Seconds between looks for parts whose deadline has passed.
SWEEP_S = 0.5


class Ready(NamedTuple):
    """What a stage has to handle: a request, and the records that it was made of."""

    request: Request
    stage: Stage
    held: tuple[Held, ...]


class Route(NamedTuple):
    """Where a stage writes to: the stage that reads, its records' method, the newest region."""

    target: str
    method: bytes
    output: Output


class Plan(NamedTuple):
    """What the fast path knows of the stages: its server's sources and ways, and the inputs."""

    sources: tuple[Any, ...]
    ways: tuple[Any, ...]
    inputs: tuple[Input, ...]


class Stage:
    """One stage: what was said of it, its edges, and the parts that wait for others.

    Args:
        line: the ``stage`` message.
    """

    def __init__(self, line: Line) -> None:
        self.outputs: dict[str, dict[int, Output]] = {}
        self.routes: tuple[Route, ...] = ()
        self.is_dropped = False
        self._waiting: dict[int, dict[int, Held]] = {}
        self._finished: dict[int, None] = {}
        self.become_declared(line)

    def become_declared(self, line: Line) -> None:
        """Replace what was said before."""
        self.pipeline, self.name = line.text("pipeline"), line.text("stage")
        self.number = line.number("number")
        self.inputs = line.number("inputs")
        self.output_count = line.number("outputs")
        self.at_most_once = line.text("delivery") == "at-most-once"
        self.method = line.text("method")

    def gather(self, held: Held) -> Ready | None:
        """Return what is to be handled, when this record completes it."""
        if self.inputs <= 1:
            return Ready(held.request, self, (held,))
        run = held.request.id
        parts = self._waiting.setdefault(run, {})
        if run in self._finished or held.source.place in parts:
            held.let_go()
            if not parts:
                del self._waiting[run]
            return None
        parts[held.source.place] = held
        if len(parts) < self.inputs:
            return None
        self.finish(run)
        ordered = tuple(parts[place] for place in sorted(parts))
        data = join([part.request.data for part in ordered])
        attempt = max(part.request.attempt for part in ordered)
        request = held.request._replace(attempt=attempt, data=data, inputs=len(ordered))
        return Ready(request, self, ordered)

    def finish(self, run: int) -> dict[int, Held]:
        """Count a run as finished; return the parts that waited."""
        if self.inputs > 1:
            self._finished[run] = None
            if len(self._finished) > FINISHED_RUNS:
                del self._finished[next(iter(self._finished))]
        return self._waiting.pop(run, {})

    def sweep(self) -> None:
        """Let go of parts whose deadline has passed."""
        late = [
            run
            for run, parts in self._waiting.items()
            if any((part.request.time_left() or 1.0) <= 0 for part in parts.values())
        ]
        for run in late:
            self.let_go(run)

    def let_go(self, run: int) -> None:
        """Let go of a run's parts; it is over."""
        for part in self.finish(run).values():
            part.let_go()

    def forget(self, source: Input) -> None:
        """Leave the parts that came from an input which is dropped to its next consumer."""
        for run in list(self._waiting):
            parts = self._waiting[run]
            gone = [place for place, part in parts.items() if part.source is source]
            for place in gone:
                parts.pop(place).abandon()
            if not parts:
                del self._waiting[run]

    def reroute(self) -> None:
        """Find anew where results go; after an output came or went."""
        newest = {
            target: regions[max(regions)] for target, regions in self.outputs.items() if regions
        }
        self.routes = tuple(
            Route(target, f"{self.pipeline}/{target}".encode(), output)
            for target, output in newest.items()
        )

    def has_routes(self) -> bool:
        """Whether all of the stage's edges are there."""
        return len(self.routes) >= self.output_count

    def way(self) -> tuple[Any, ...]:
        """Return this as a way of the fast path's server."""
        name = f"{self.pipeline}/{self.name}".encode()
        routes = self.routes if self.output_count else ()
        ends = tuple((route.output.producer, route.method) for route in routes)
        return name, self, self.method, self.number + 1, ends

    def route(self, target: str) -> Route | None:
        """Return the newest region of the edge to a stage."""
        return next((route for route in self.routes if route.target == target), None)


class Stages:
    """All stages of an attachment. Used by one thread at a time.

    Args:
        poll: where the wakes are waited for.
        damaged: told the name of an edge whose ring is damaged.
        changing: called before a stage or an edge comes, changes or goes.
    """

    def __init__(
        self, poll: select.epoll, damaged: Callable[[str], None], changing: Callable[[], None]
    ) -> None:
        self._poll = poll
        self._damaged = damaged
        self._changing = changing
        self._stages: dict[tuple[str, str], Stage] = {}
        self._inputs: dict[tuple[str, int], tuple[Stage, Input]] = {}
        self._order: list[tuple[str, int]] = []
        self._swept = 0.0

    def find(self, method: str) -> Stage | None:
        """Return the stage that a record's method, ``pipeline/stage``, names."""
        pipeline, _, stage = method.partition("/")
        return self._stages.get((pipeline, stage))

    def hear(self, line: Line, descriptors: list[int]) -> None:
        """Do what a message says; words that are not known are passed over."""
        self._changing()
        if line.word == "edge":
            self._add(line, descriptors)
            return
        close_all(descriptors)
        if line.word == "stage":
            key = line.text("pipeline"), line.text("stage")
            if key in self._stages:
                self._stages[key].become_declared(line)
            else:
                self._stages[key] = Stage(line)
        elif line.word == "edge-drop":
            self._drop(line.text("name"), line.text("role"), line.number("region"))
        elif line.word == "stage-drop":
            self._drop_stage(line.text("pipeline"), line.text("stage"))

    def plan(self) -> Plan:
        """Return what the fast path may do: whatever needs one record and has its routes."""
        able = [stage for stage in self._stages.values() if stage.has_routes()]
        places = {stage: place for place, stage in enumerate(able) if stage.inputs <= 1}
        taken = [self._inputs[key] for key in self._order]
        return Plan(
            tuple(source.source(places.get(stage, -1)) for stage, source in taken),
            tuple(stage.way() for stage in able),
            tuple(source for _, source in taken),
        )

    def take(self, spin: float = 0.0) -> Ready | None:
        """Return what one of the inputs has; looks at them in turn."""
        for key in self._order:
            stage, source = self._inputs[key]
            try:
                held = source.take(spin)
            except RingClosedError:
                self._drop(key[0], "consumer", key[1])
                return None
            except RingCorruptError:
                self.become_damaged(key[0])
                return None
            if held is not None:
                if len(self._order) > 1:
                    self._order.remove(key)
                    self._order.append(key)
                return stage.gather(held)
        self.sweep()
        return None

    def doze(self) -> bool:
        """Ask for the bells of all inputs; False when there is something to take already."""
        idle = True
        for name, number in list(self._order):
            _, source = self._inputs[name, number]
            try:
                idle &= source.doze()
            except RingClosedError:
                self._drop(name, "consumer", number)
            except RingCorruptError:
                idle = False  # the next take tells of it
        return idle

    def over(self, run: int) -> None:
        """Let go of a run's parts in every stage."""
        for stage in self._stages.values():
            stage.let_go(run)

    def close(self) -> None:
        """Let go of every region, now; what is still at work has nowhere to go."""
        self._changing()
        for stage in self._stages.values():
            stage.is_dropped = True
        for _, source in self._inputs.values():
            source.close()
        for stage in self._stages.values():
            for regions in stage.outputs.values():
                for output in regions.values():
                    output.close()
        self._inputs.clear()
        self._order.clear()
        self._stages.clear()

    def close_inherited(self) -> None:
        """Close the descriptors in a child process; the regions are its parent's."""
        ends: list[Input | Output] = [source for _, source in self._inputs.values()]
        for stage in self._stages.values():
            for regions in stage.outputs.values():
                ends += regions.values()
        for end in ends:
            end.close_inherited()

    def become_damaged(self, name: str) -> None:
        """Let go of every region of an edge whose ring is damaged, and say so."""
        log.error("the edge %s is damaged", name)
        for edge, number in [key for key in self._inputs if key[0] == name]:
            self._drop(edge, "consumer", number)
        pipeline, producer, consumer = name.split("/")
        stage = self._stages.get((pipeline, producer))
        for number in list(stage.outputs.get(consumer, {})) if stage else ():
            self._drop(name, "producer", number)
        self._damaged(name)

    def _add(self, line: Line, descriptors: list[int]) -> None:
        """Take on an end of an edge's region."""
        name, role, number = line.text("name"), line.text("role"), line.number("region")
        pipeline, _, ends = name.partition("/")
        producer, _, consumer = ends.partition("/")
        stage = self._stages.get((pipeline, producer if role == "producer" else consumer))
        if stage is None or role not in {"producer", "consumer"}:
            close_all(descriptors)
            return
        self._drop(name, role, number)
        region: Region | None = None
        try:
            region = map_region(descriptors, line.number("ring_bytes"))
            if role == "producer":
                stage.outputs.setdefault(consumer, {})[number] = Output(region, number)
                stage.reroute()
                return
            source = Input(
                region,
                place=line.number("input"),
                generation=line.number("generation"),
                seen=line.number("seen"),
                at_most_once=stage.at_most_once,
            )
        except (InvalidRegionError, RingCorruptError):
            log.exception("the edge %s is damaged", name)
            close_all(descriptors)
            self._damaged(name)
            return
        self._poll.register(source.wake, select.EPOLLIN)
        self._inputs[name, number] = (stage, source)
        self._order.append((name, number))

    def _drop(self, name: str, role: str, number: int) -> None:
        """Let go of an end of an edge's region, if there is one."""
        self._changing()
        pipeline, _, ends = name.partition("/")
        producer, _, consumer = ends.partition("/")
        if role == "producer":
            stage = self._stages.get((pipeline, producer))
            output = stage.outputs.get(consumer, {}).pop(number, None) if stage else None
            if stage and output:
                stage.reroute()
                output.close()
        elif (name, number) in self._inputs:
            reader, source = self._inputs.pop((name, number))
            self._order.remove((name, number))
            self._poll.unregister(source.wake)
            reader.forget(source)
            source.drop()

    def _drop_stage(self, pipeline: str, name: str) -> None:
        stage = self._stages.get((pipeline, name))
        if stage is None:
            return
        for edge, number in [key for key, (owner, _) in self._inputs.items() if owner is stage]:
            self._drop(edge, "consumer", number)
        for target, regions in stage.outputs.items():
            for number in list(regions):
                self._drop(f"{pipeline}/{name}/{target}", "producer", number)
        stage.is_dropped = True
        del self._stages[pipeline, name]

    def sweep(self) -> None:
        """Let go of parts whose deadline has passed, now and then."""
        now = time.monotonic()
        if now - self._swept >= SWEEP_S:
            self._swept = now
            for stage in self._stages.values():
                stage.sweep()
