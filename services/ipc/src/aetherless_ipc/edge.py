# SPDX-License-Identifier: Apache-2.0
"""One edge of a pipeline: its regions, oldest first, and what its two ends are told of them.

A producer has one region, made for it. A consumer has every region of the edge, so that it reads
what earlier producers wrote. docs/ipc.md has the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_ipc.edgeregion import EdgeRegion, Peer, tell
from aetherless_ipc.sparing import peer_log

if TYPE_CHECKING:
    from aetherless_common.stages import Edge as Arc
    from aetherless_ipc.edgewatch import EdgeWatch
    from aetherless_ring.layout import Layout

# Of one edge. More than processes that end one after the other leave to a reader that goes on
# reading; a writer can make a region look as if it were never drained.
MOST_REGIONS = 32


class Edge:
    """The way of records from one stage to another.

    Args:
        pipeline: the pipeline's id.
        arc: which stages it joins.
        reader: the function whose stage reads.
        layout: that of its regions.
        watch: minds regions that nobody reads.
    """

    def __init__(
        self, pipeline: str, arc: Arc, reader: str, layout: Layout, watch: EdgeWatch
    ) -> None:
        self.name = f"{pipeline}/{arc.source}/{arc.target}"
        self.arc = arc
        self.reader = reader
        self._layout = layout
        self._watch = watch
        self._regions: list[EdgeRegion] = []
        self._made = 0
        # What went through regions that are gone.
        self._produced = self._consumed = 0
        self.generation = 0

    @property
    def has_producer(self) -> bool:
        """Whether a process writes to it."""
        return any(region.producer for region in self._regions)

    @property
    def has_consumer(self) -> bool:
        """Whether a process reads of it."""
        return any(region.consumer for region in self._regions)

    @property
    def is_idle(self) -> bool:
        """Whether nothing lies in it."""
        return all(region.is_empty for region in self._regions)

    def is_read_by(self, peer: Peer) -> bool:
        """Tell whether a process reads of it."""
        return any(region.consumer is peer for region in self._regions)

    def is_written_by(self, peer: Peer) -> bool:
        """Tell whether a process writes to it."""
        return any(region.producer is peer for region in self._regions)

    def is_held_by(self, peer: Peer) -> bool:
        """Tell whether a process reads of it or writes to it."""
        return any(peer in (region.consumer, region.producer) for region in self._regions)

    def orphans(self) -> list[EdgeRegion]:
        """Return the regions that nobody reads."""
        return [region for region in self._regions if region.consumer is None]

    def bytes(self) -> tuple[int, int]:
        """Return the bytes that were produced, and those that were consumed, of all regions."""
        produced, consumed = self._produced, self._consumed
        for region in self._regions:
            written, read = region.indices()
            produced += written
            consumed += read
        return produced, consumed

    def add_producer(self, peer: Peer) -> EdgeRegion:
        """Make a region for a process that will write, and hand it over.

        Raises:
            OSError: it could not be made.
        """
        self._make_room()
        self._made += 1
        region = EdgeRegion(self.name, self._made, self._layout, peer)
        self._regions.append(region)
        self._watch.orphaned(region, self.reader)
        tell(peer, self._text(region, "producer"), region.ends(producer=True))
        return region

    def give(self, region: EdgeRegion, peer: Peer) -> None:
        """Hand a region that nobody reads to a process that will."""
        self._watch.adopted(region)
        region.give(peer)
        self.generation += 1
        tell(peer, self._text(region, "consumer"), region.ends(producer=False))

    def recall(self, peer: Peer) -> None:
        """Ask a process to let go of all that it reads."""
        for region in self._regions:
            if region.consumer is peer and not region.leaving:
                region.leaving = True
                tell(peer, self._drop_text(region, "consumer"))

    def leaving(self) -> list[EdgeRegion]:
        """Return the regions whose readers were asked to let go."""
        return [region for region in self._regions if region.leaving]

    def take_released(self) -> list[int]:
        """Take back what the readers that were asked to have let go of.

        Returns the runs that they had taken to themselves and did not finish: parts that waited.
        """
        released = [region for region in self.leaving() if region.is_released]
        return [run for region in released for run in self._take_back(region)]

    def lose(self, peer: Peer) -> list[int]:
        """Take note that a process is gone; return the runs that it had taken to itself."""
        runs: list[int] = []
        for region in self._regions:
            if region.consumer is peer:
                runs += self._take_back(region)
            if region.producer is peer:
                region.producer = None
        return runs

    def drop_drained(self) -> bool:
        """Let go of regions without a producer that are empty; tell whether any are left."""
        for region in [each for each in self._regions if each.producer is None]:
            if region.is_drained:
                self._drop(region)
        return any(region.producer is None for region in self._regions)

    def drop_all(self) -> list[Peer]:
        """Let go of every region, telling both ends; return the processes that wrote."""
        producers = [region.producer for region in self._regions if region.producer]
        for region in list(self._regions):
            self._drop(region)
        return producers

    def _make_room(self) -> None:
        """Let go of the oldest region that nobody writes to, if one more were too many.

        Runs that lie in it end at their deadlines.
        """
        left = [region for region in self._regions if region.producer is None]
        if left and len(self._regions) >= MOST_REGIONS:
            peer_log.warning("region dropped unread", instance=self.name, region=left[0].number)
            self._drop(left[0])

    def _take_back(self, region: EdgeRegion) -> list[int]:
        """Take a region from its reader; return the runs that this one had taken to itself."""
        runs = region.take_back()
        self._watch.orphaned(region, self.reader)
        return runs

    def _drop(self, region: EdgeRegion) -> None:
        if region.consumer is None:
            self._watch.adopted(region)
        for peer, role in ((region.producer, "producer"), (region.consumer, "consumer")):
            if peer is not None:
                tell(peer, self._drop_text(region, role))
        produced, consumed = region.indices()
        self._produced += produced
        self._consumed += consumed
        self._regions.remove(region)
        region.close()

    def _text(self, region: EdgeRegion, role: str) -> str:
        return (
            f"edge name={self.name} role={role} region={region.number}"
            f" generation={region.generation} input={self.arc.position} seen={region.seen}"
            f" {region.sizes}"
        )

    def _drop_text(self, region: EdgeRegion, role: str) -> str:
        return f"edge-drop name={self.name} role={role} region={region.number}"
