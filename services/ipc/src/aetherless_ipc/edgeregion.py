# SPDX-License-Identifier: Apache-2.0
"""One region of an edge: who holds its ends, and what its control block says.

Both ends can write the control block, so what is read here is checked and serves for counting, for
deciding when a region is empty, and for telling runs that were lost; nothing is found through it.
"""

from __future__ import annotations

import mmap
import socket
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from aetherless_ipc.bell import Bell
from aetherless_ipc.region import Memory
from aetherless_ring.layout import ALIGNMENT, PAGE, ControlField, Direction, Layout, Sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the control block of direction 0, beyond what a ring has; docs/ipc.md has their meaning.
SLOTS_AT, SLOTS = 512, 256
RELEASED_AT = 2560
_SLOTS = struct.Struct(f"={SLOTS}Q")


log = structlog.get_logger()


class Peer(Protocol):
    """An attached process, as edges see it."""

    control: socket.socket

    def send_message(self, text: str, descriptors: Sequence[int] = ()) -> None:
        """Send it a message.

        Raises:
            OSError: it is gone, or does not read.
        """


def tell(peer: Peer, text: str, descriptors: Sequence[int] = ()) -> None:
    """Send a message to a peer that may be gone; cut off one that does not read its messages."""
    try:
        peer.send_message(text, descriptors)
    except BlockingIOError:
        log.warning("peer does not read", message=text)
        with suppress(OSError):
            peer.control.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("peer does not hear", message=text, error=str(error))


class EdgeRegion:
    """Shared memory from one producer to one consumer after another.

    Args:
        name: the edge's.
        number: counts the regions of the edge, from 1.
        layout: where things lie in it.
        producer: who writes.

    Raises:
        OSError: the kernel refused the memory or a descriptor.
    """

    def __init__(self, name: str, number: int, layout: Layout, producer: Peer) -> None:
        self.number = number
        self.producer: Peer | None = producer
        self.consumer: Peer | None = None
        # Whether the consumer was told to let go.
        self.leaving = False
        # How often it was handed to a consumer, and up to where that may have taken records.
        self.generation = 0
        self.seen = 0
        self._layout = layout
        self._at = layout.control_offset(Direction.TO_PEER)
        with ExitStack() as made:
            self._memory = Memory(f"aether-{name}"[:249], layout, number)
            made.callback(self._memory.release)
            # SAFETY: the memory is sealed, so the mapping can't lose its pages.
            self._pages = mmap.mmap(self._memory.descriptor, 2 * PAGE)
            made.callback(self._pages.close)
            self._of_consumer = Bell()
            made.callback(self._of_consumer.close)
            self._of_producer = Bell()
            made.callback(self._of_producer.close)
            self._holds = made.pop_all()

    @property
    def bell(self) -> int:
        """What the consumer hears by."""
        return self._of_consumer.ear

    @property
    def sizes(self) -> str:
        """What a message says of the sizes."""
        return f"region_bytes={self._layout.region_bytes} ring_bytes={self._layout.ring_bytes}"

    def ends(self, *, producer: bool) -> tuple[int, int, int]:
        """Return the memory, what that end is woken by, and what it wakes the other by."""
        own, other = self._of_consumer, self._of_producer
        if producer:
            own, other = other, own
        return self._memory.descriptor, own.ear, other.hammer

    def indices(self) -> tuple[int, int]:
        """Return produced and consumed; what can't be reads as an empty ring's."""
        consumed = self._word(ControlField.CONSUMED)
        produced = self._word(ControlField.PRODUCED)
        waiting = produced - consumed
        if waiting % ALIGNMENT or not 0 <= waiting <= self._layout.ring_bytes:
            return produced, produced
        return produced, consumed

    @property
    def is_empty(self) -> bool:
        """Whether everything was consumed."""
        produced, consumed = self.indices()
        return produced == consumed

    @property
    def is_drained(self) -> bool:
        """Whether everything was consumed, and nothing is worked on that was given back before."""
        return self.is_empty and not any(self._slots())

    @property
    def is_released(self) -> bool:
        """Whether the consumer has let go, as it was told."""
        return self._word(RELEASED_AT) == self.generation

    def give(self, consumer: Peer) -> None:
        """Let a consumer have it."""
        self.consumer, self.leaving = consumer, False
        self.generation += 1

    def take_back(self) -> list[int]:
        """Take note that the consumer is gone; return the runs that it had taken to itself.

        One that let go of it in order has handled all that it took, but for parts of runs whose
        other parts had not come.
        """
        produced, consumed = self.indices()
        self.seen = consumed if self.leaving and self.is_released else produced
        self.consumer, self.leaving = None, False
        runs = self._slots()
        _SLOTS.pack_into(self._pages, self._at + SLOTS_AT, *(0,) * SLOTS)
        return [run for run in runs if run]

    def sleep(self) -> None:
        """Ask the producer, in the consumer's place, to ring when it has written."""
        struct.pack_into(
            "=I", self._pages, self._at + ControlField.CONSUMER_ASLEEP, Sleep.ON_DOORBELL
        )

    def hear(self) -> bool:
        """Tell whether the consumer's bell was rung, and take that note away."""
        return self._of_consumer.hear()

    def close(self) -> None:
        """Mark it closed, wake both ends, and let go of it."""
        self._memory.mark_closed()
        self._of_consumer.ring()
        self._of_producer.ring()
        self._holds.close()

    def _slots(self) -> tuple[int, ...]:
        """Return the runs that a consumer which delivers at most once has, and zeros."""
        return _SLOTS.unpack_from(self._pages, self._at + SLOTS_AT)

    def _word(self, offset: int) -> int:
        (value,) = struct.unpack_from("=Q", self._pages, self._at + offset)
        return int(value)
