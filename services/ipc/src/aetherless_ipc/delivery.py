# SPDX-License-Identifier: Apache-2.0
"""Gets the calls of one channel to the attachment of its instance; wakes the instance for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from aetherless_common import tracing
from aetherless_common.errors import AetherlessError
from aetherless_ipc import errors
from aetherless_ipc.attachment import Sent
from aetherless_ipc.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_ipc.attachment import Attachment
    from aetherless_ipc.calls import AwaitedCall, Call
    from aetherless_ipc.records import Response

log = structlog.get_logger()
ROOM_SLICE_S = 0.02
# An instance that was woken and does not attach is woken again: it may have ended meanwhile.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
# An instance that is between two states says so, and one that has just ended; that passes.
PASSING = ("INVALID_STATE_TRANSITION", "OPERATION_IN_PROGRESS", "SANDBOX_FAILED")
PASSING_S = 5.0
# Another instance is being made in its place, or the channel is about to go: calls wait for either.
GONE = "INSTANCE_NOT_FOUND"


@dataclass(slots=True)
class Surroundings:
    """What deliveries of all channels have in common; each is called from any thread.

    ``wake`` wakes an instance and returns whether it had to be. ``used`` is told that a call was
    sent, ``led`` to which attachment a function's calls will go, with the broker's lock held.
    ``released`` waits, for so many seconds at most, until an attachment that no calls go to has let
    go of its edges, and tells whether it has. ``stray`` may take an answer to a call that its
    attachment does not have; ``called`` takes a record by which a function calls another one.
    """

    wake: Callable[[str], bool]
    used: Callable[[Attachment], None] = lambda _: None
    led: Callable[[str, Attachment | None], None] = lambda _, __: None
    released: Callable[[Attachment, float], bool] = lambda _, __: True
    stray: Callable[[Attachment, Response], bool] = lambda _, __: False
    called: Callable[[Attachment, bytes], None] = lambda _, __: None


class Delivery:
    """The calls of a channel that wait, and where they go. Safe to use from any thread.

    ``stats`` counts them. The lock may be taken with the broker's held, never the other way round.

    Args:
        function: the function's id.
        around: what is asked for help.
    """

    def __init__(self, function: str, around: Surroundings) -> None:
        self.stats = Stats()
        self._function = function
        self._around = around
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Call] = deque()
        self._instance = ""
        self._attachment: Attachment | None = None
        self._lacks_room = False
        self._waking = False
        self._working = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many calls wait for an attachment or for room."""
        return sum(not call.is_over for call in tuple(self._waiting))

    def become_led_to(self, instance: str, attachment: Attachment | None) -> None:
        """Lead calls to an instance that is admitted, or to none, and to its attachment."""
        self._around.led(self._function, attachment)
        with self._lock:
            self._instance = instance
            self._attachment = attachment
            self._send_waiting()
            if attachment is not None:
                self._waking = False
            self._changed.notify_all()

    def become_closed(self) -> None:
        """End all calls that wait, and refuse others."""
        with self._lock:
            self._closed = True
            self._attachment = None
            self._fail_waiting(errors.peer_gone(self._function))
            self._changed.notify_all()

    def carry_out(self, call: AwaitedCall) -> None:
        """Make a call and wait in its thread for its end.

        Raises:
            ResourceExhausted: RING_FULL.
            Unavailable: PEER_GONE.
        """
        self.stats.begun(call)
        attachment = self._attachment
        if attachment is None or self._waiting or attachment.call(call) is not Sent.YES:
            attachment = self._submit_slowly(call)
            if attachment is not None:
                attachment.wait(call)
        call.wait()

    def submit(self, call: Call) -> None:
        """Take a call on that has no thread of its own.

        Raises:
            ResourceExhausted: RING_FULL.
            Unavailable: PEER_GONE.
        """
        self.stats.begun(call)
        attachment = self._attachment
        if attachment is None or self._waiting or attachment.send(call) is not Sent.YES:
            self._submit_slowly(call)

    def lost(self, calls: list[Call]) -> None:
        """Take calls back whose attachment ended; they go to the next one before any others."""
        left = (call for call in calls if not call.is_over and call.comes_back())
        calls = sorted(left, key=lambda call: call.id)
        if not calls:
            return
        with self._lock:
            if self._closed:
                for call in calls:
                    call.fail(errors.peer_gone(self._function))
                return
            self._waiting.extendleft(reversed(calls))
            self._work()

    def used(self, attachment: Attachment) -> None:
        """Take note that a call was sent."""
        self._around.used(attachment)

    def stray(self, attachment: Attachment, response: Response) -> bool:
        """Take an answer to a call that the attachment does not have; False for nobody's."""
        return self._around.stray(attachment, response)

    def called(self, attachment: Attachment, payload: bytes) -> None:
        """Take a record by which the function calls another one."""
        self._around.called(attachment, payload)

    def _submit_slowly(self, call: Call) -> Attachment | None:
        """Send a call, or let it wait; return the attachment that it was sent to, if any."""
        with self._lock:
            if self._closed:
                raise self._ended(call, errors.peer_gone(self._function))
            attachment = self._attachment
            if attachment is not None and not self._waiting:
                sent = attachment.send(call)
                if sent is Sent.YES:
                    return attachment
                self._lacks_room = sent is Sent.FULL
            if self._lacks_room and not call.patient:
                self._lacks_room = bool(self._waiting)
                raise self._ended(call, errors.ring_full(self._function, len(call.data)))
            self._waiting.append(call)
            self._work()
            return None

    @staticmethod
    def _ended(call: Call, error: AetherlessError) -> AetherlessError:
        call.fail(error)
        return error

    def _work(self) -> None:
        """Have a thread see to the calls that wait; with the lock held."""
        if not self._working:
            self._working = True
            name = f"delivery-{self._function}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        """Send what waits, waiting for room or waking the instance, until nothing waits."""
        pause, refused_since = FIRST_PAUSE_S, 0.0
        while True:
            with self._lock:
                self._send_waiting()
                if not self._waiting:
                    self._working = False
                    return
                attachment, instance, first = self._attachment, self._instance, self._waiting[0]
                if attachment is not None and not self._lacks_room:
                    self._changed.wait(FIRST_PAUSE_S)  # it has just ended
                    continue
            if attachment is not None:
                attachment.await_room(first.length, ROOM_SLICE_S)
                continue
            refused_since = self._try_wake(instance, first, refused_since)
            with self._changed:
                if self._attachment is None and self._waiting:
                    self._changed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _send_waiting(self) -> None:
        """Send the calls that wait while there is room; with the lock held."""
        attachment = self._attachment
        self._lacks_room = False
        while self._waiting:
            call = self._waiting[0]
            if not call.is_over:
                call.woke |= self._waking
                sent = Sent.GONE if attachment is None else attachment.send(call)
                if sent is Sent.FULL and not call.patient and call.attempts == 0:
                    call.fail(errors.ring_full(self._function, len(call.data)))
                elif sent is not Sent.YES:
                    self._lacks_room = sent is Sent.FULL
                    return
            self._waiting.popleft()

    def _try_wake(self, instance: str, first: Call, refused_since: float) -> float:
        """Wake the instance, if one is admitted; return since when that is refused, 0 if not."""
        if not instance:
            return 0.0
        # What is sent to whoever attaches next woke it; when it was woken before, too.
        woke, self._waking = self._waking, True
        try:
            with tracing.use(first.span):
                woke |= self._around.wake(instance)
        except AetherlessError as error:
            woke = False
            if error.reason == GONE:
                return 0.0
            now = time.monotonic()
            refused_since = refused_since or now
            if error.reason not in PASSING or now - refused_since >= PASSING_S:
                with self._lock:
                    self._fail_waiting(error)
            return refused_since
        finally:
            with self._lock:
                self._waking = woke and self._attachment is None
        return 0.0

    def _fail_waiting(self, error: AetherlessError) -> None:
        """End all calls that wait; with the lock held."""
        while self._waiting:
            self._waiting.popleft().fail(_again(error))


def _again(error: AetherlessError) -> AetherlessError:
    """Return the same error once more, since each thread that raises one writes into it."""
    return type(error)(
        error.reason,
        error.message,
        error.metadata,
        domain=error.domain,
        violations=error.violations,
    )
