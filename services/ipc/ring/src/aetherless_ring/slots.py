# SPDX-License-Identifier: Apache-2.0
"""Records where they lie: one, or several that are finished together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from aetherless_ring.end import End


class Slot:
    """A payload in the ring; a context manager that releases it. ``view`` is its buffer."""

    def __init__(self, end: End, view: memoryview, kind: int) -> None:
        self._end: End | None = end
        self._length = len(view)
        self.view = view
        self.type = kind

    def commit(self, length: int | None = None, kind: int = 0) -> None:
        """Finish a reserved record, of its first ``length`` bytes, and wake the consumer."""
        end = self._open()
        if self.view.readonly:
            raise TypeError("it was peeked at")
        chosen = self._length if length is None else length
        if not 0 < chosen <= self._length:
            raise ValueError(f"length must be 1 to {self._length}")
        self._end = None
        end._close_slot(chosen, kind)  # noqa: SLF001  # an end and its slot are one thing

    def release(self) -> None:
        """Give a peeked record's place back, or a reserved one up."""
        end, self._end = self._end, None
        if end is not None:
            end._close_slot(self._length if self.view.readonly else 0, 0)  # noqa: SLF001  # as above

    def _open(self) -> End:
        if self._end is None:
            raise ValueError("the record is finished")
        return self._end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Member(NamedTuple):
    """A record of a batch: its index, its sequence, its type and its payload in the ring."""

    index: int
    sequence: int
    kind: int
    view: memoryview


class Batch:
    """Payloads in the ring; a context manager that releases them together.

    ``views`` are their buffers, ``types`` the types of peeked ones.
    """

    def __init__(self, end: End, members: list[Member], *, writable: bool) -> None:
        self._end: End | None = end
        self._writable = writable
        self.members = members
        self.views = [member.view for member in members]
        self.types = [member.kind for member in members]

    def commit(self, kind: int = 0, /) -> None:
        """Finish the reserved records and wake the consumer, once for all."""
        if self._end is None:
            raise ValueError("the records are finished")
        if not self._writable:
            raise TypeError("they were peeked at")
        end, self._end = self._end, None
        end._close_batch(self, kind)  # noqa: SLF001  # an end and its batch are one thing

    def release(self) -> None:
        """Give peeked records' places back, or reserved ones up."""
        end, self._end = self._end, None
        if end is not None:
            end._close_batch(self, None)  # noqa: SLF001  # as above

    def __len__(self) -> int:
        return len(self.members)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
