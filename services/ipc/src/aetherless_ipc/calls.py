# SPDX-License-Identifier: Apache-2.0
"""One call on its way: what was asked, where it is, and how it ended.

A call ends once: by its answer, its deadline, its caller's leave, or a failure on the way. Whoever
is first to end it says how; the others find it over.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aetherless_ipc import errors, records
from aetherless_ipc.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.errors import AetherlessError
    from aetherless_common.tracing import Span

LONGEST_MESSAGE = 4096
# Ids are not used again, also not by the next process: what an old peer answers is nobody's.
_ids = itertools.count(time.time_ns())


class Asked(NamedTuple):
    """What is asked for by a call of a function.

    Args:
        function: the function's id.
        method: of its handler; empty for the default one.
        data: what the handler is given.
        timeout: seconds from now to its deadline.
        patient: waits for room in the ring.
        span: whose context goes with it.
    """

    function: str
    method: bytes
    data: bytes
    timeout: float
    patient: bool
    span: Span


class Carrier(Protocol):
    """What carries a call to its function and back."""

    def forget(self, call: Call) -> None:
        """Take note that a call is over."""


class Tally(Protocol):
    """What counts calls."""

    def ended(self, call: Call) -> None:
        """Count the end of a call."""


class Call:
    """A call of a function.

    Args:
        asked: what is asked for.
    """

    def __init__(self, asked: Asked) -> None:
        self.id = next(_ids)
        self.function = asked.function
        self.method = asked.method
        self.data = asked.data
        self.begun = time.monotonic()
        self.timeout = asked.timeout
        self.until = self.begun + self.timeout
        self.deadline_ns = time.time_ns() + round(self.timeout * 1e9)
        self.patient = asked.patient
        self.span = span = asked.span
        self.trace = dict(span.carrier).get("traceparent", "").encode() if span.carrier else b""
        self.attempts = 0
        self.woke = False
        self.result = b""
        self.error: AetherlessError | None = None
        self.is_over = False
        self.is_cancelled = False
        self.stats: Tally | None = None
        self.attachment: Carrier | None = None
        self._claims = [True]

    @property
    def length(self) -> int:
        """The length of its record's payload."""
        return records.REQUEST_HEAD + len(self.trace) + len(self.method) + len(self.data)

    @property
    def elapsed(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.begun

    @property
    def kind_and_name(self) -> tuple[str, str]:
        """What is called."""
        return "function", self.function

    def time_left(self) -> float:
        """Return the seconds to its deadline; not positive when that has passed."""
        return self.until - time.monotonic()

    def record(self, attempt: int) -> bytes:
        """Return the payload of its record."""
        return records.request(
            self.id, self.deadline_ns, attempt, self.trace, self.method, self.data
        )

    def answer(self, status: int, data: bytes) -> bool:
        """End it by what a handler answered; False when it was over."""
        if status == Status.RESULT:
            return self._end(data, None)
        return self.fail(self._error(status, data))

    def fail(self, error: AetherlessError) -> bool:
        """End it by an error; False when it was over."""
        return self._end(b"", error)

    def expire(self) -> bool:
        """End it since its deadline has passed; False when it was over."""
        return self.fail(self._timed_out())

    def cancel(self) -> None:
        """End it since its caller left, unless it is over."""
        self._end(b"", None, cancelled=True)

    def comes_back(self) -> bool:
        """Tell, of a call whose attachment ended, whether it may be delivered again."""
        return True

    def ended(self) -> None:
        """Tell whoever waits for it; called once, from the thread that ended it."""

    def _timed_out(self) -> AetherlessError:
        timeout_ms = round(self.timeout * 1000)
        return errors.invocation_timeout(*self.kind_and_name, timeout_ms, self.attempts)

    def _error(self, status: int, data: bytes) -> AetherlessError:
        """Return the error for an answer that is no result."""
        if status == Status.NO_METHOD:
            return errors.method_not_found(self.function, self.method.decode(errors="replace"))
        if status == Status.DEADLINE_PASSED:
            return self._timed_out()
        message = data[:LONGEST_MESSAGE].decode(errors="replace")
        if status != Status.FAILED:
            message = f"its answer has the status {status}"
        return errors.handler_failed(self.function, message)

    def _end(
        self, result: bytes, error: AetherlessError | None, *, cancelled: bool = False
    ) -> bool:
        try:
            self._claims.pop()  # in one step: only one thread finds it
        except IndexError:
            return False
        self.result = result
        self.error = error
        self.is_cancelled = cancelled
        self.is_over = True
        attachment, self.attachment = self.attachment, None  # its region is not kept by the call
        if attachment is not None:
            attachment.forget(self)
        if self.stats is not None:
            self.stats.ended(self)
        self.data = b""
        self.ended()
        return True


class AwaitedCall(Call):
    """A call whose thread waits for it, and may be asked to read the ring meanwhile."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._ready = threading.Lock()
        self._ready.acquire()

    def ended(self) -> None:
        """Wake the thread."""
        self.signal()

    def signal(self) -> None:
        """Wake the thread, so that it looks around."""
        try:
            self._ready.release()
        except RuntimeError:
            return  # it was woken already and has not looked yet

    def park(self, seconds: float) -> None:
        """Sleep until woken, at most so long."""
        self._ready.acquire(timeout=max(seconds, 0))

    def wait(self) -> None:
        """Sleep until it is over; at its deadline it is."""
        while not self.is_over:
            left = self.time_left()
            if left <= 0:
                self.expire()
            else:
                self.park(left)


class ToldCall(Call):
    """A call without a thread: a function is told of its end.

    Args:
        asked: what is asked for.
        told: called with the call, from whichever thread ended it.
    """

    def __init__(self, asked: Asked, told: Callable[[Call], None]) -> None:
        super().__init__(asked)
        self._told = told

    def ended(self) -> None:
        """Tell."""
        self._told(self)
