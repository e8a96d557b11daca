# SPDX-License-Identifier: Apache-2.0
"""The fast path: requests that go through the ring's extension to a handler and on, without us.

It takes the common case only, and is built anew whenever the service says something. Whatever is
unusual is left to the code that does everything: a record stays where it is; a request whose result
can't be published at once comes here with it. Without the extension there is no fast path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from aetherless_client.answering import data_of, message_of
from aetherless_client.calls import Request, Status, current
from aetherless_ring import IMPLEMENTATION

if IMPLEMENTATION == "native":
    from aetherless_ring._native import Server
else:
    Server = None  # type: ignore[assignment,misc]  # nobody makes one

if TYPE_CHECKING:
    from aetherless_client.channel import Channel
    from aetherless_client.edges import Held
    from aetherless_client.lead import Lead
    from aetherless_client.stages import Stage

log = logging.getLogger(__name__)
Handler = Callable[[bytes], bytes]
Outcome = tuple[Status, bytes]


class Step(IntEnum):
    """What the fast path wants done; as the extension has it."""

    LOOK = 0  # something has to be taken by the code that does everything
    HEAR = 1  # the service may have said something


class Handlers:
    """What serves a channel: one handler for every method, or one for each.

    Args:
        given: the handler, or those of the methods.
    """

    def __init__(self, given: Handler | Mapping[str, Handler]) -> None:
        self.only = None if isinstance(given, Mapping) else given
        self.find: Callable[[str], Handler | None] = (
            given.get if isinstance(given, Mapping) else lambda _: given
        )


class Handed(NamedTuple):
    """A request that the fast path took and did not finish, and what its handler did."""

    request: Request
    stage: Stage | None
    held: tuple[Held, ...]
    outcome: Outcome


class FastPath:
    """The fast path of one channel, for as long as its stages and edges stay as they are.

    Args:
        channel: what is served.
        handlers: what serves it.
        lead: the right to read, lent while a handler runs.
        begun: called when a request is no longer the fast path's alone.
    """

    def __init__(
        self, channel: Channel, handlers: Handlers, lead: Lead, begun: Callable[[], None]
    ) -> None:
        self.handlers = handlers
        self.has_lost_lead = False
        self._is_over = False
        self._lead = lead
        self._begun = begun
        self._lock = threading.Lock()
        self._adopted: tuple[Held, ...] | None = None
        plan = channel.stages.plan()
        self._inputs = plan.inputs
        self._server: Server | None = Server(
            sources=(channel.source(), *plan.sources),
            ways=plan.ways,
            reply=channel.producer,
            poll=channel.poll_number,
            request_type=Request,
            show=current.set,
            unshow=current.reset,
            find=handlers.find,
            handler=handlers.only,
            sleepers=lead.sleepers,
            hand_on=lead.hand_on,
        )
        lead.lender = self

    def serve(self, spin: float) -> Any:
        """Handle requests until the code that does everything is needed.

        Returns:
            A Step, or what ``take_over`` wants.
        """
        return self._server.serve(spin) if self._server else Step.HEAR

    def take_over(self, ended: tuple[Request, Stage | None, Any, bool]) -> Handed:
        """Take a request over whose handler has ended; ``forget`` is to follow.

        Raises:
            BaseException: what the handler raised, when that is no failure but an end.
        """
        request, stage, result, failed = ended
        with self._lock:  # who takes the lead meanwhile is done with that
            held = self._adopt()
            if not self.has_lost_lead:
                self._begun()
        outcome = _failure(result) if failed else _success(result)
        return Handed(request, stage, held, outcome)

    def forget(self) -> None:
        """Leave the request that was at work to who took it over."""
        with self._lock:
            if self._server:
                self._server.done()
            self._adopted = None
            self.has_lost_lead = False
            self._let_go_if_over()

    def is_lent(self) -> bool:
        """Whether a handler runs, and the lead is anybody's."""
        server = self._server
        return server is not None and server.is_lent()

    def take_lead(self) -> bool:
        """Take the lead if it is lent; what is at work comes before what is read from now on."""
        with self._lock:
            if not (self._server and self._server.take_lead()):
                return False
            self._adopt()
            self.has_lost_lead = True
            self._begun()
            self._lead.become_mine()
        return True

    def stop(self) -> None:
        """Publish nothing more; what is at work is held as the inputs hold it."""
        self.abandon()
        with self._lock:
            self._adopt()
            self._let_go_if_over()

    def abandon(self) -> None:
        """Publish nothing more, in a child process."""
        self._is_over = True
        self._lead.lender = None
        if self._server:
            self._server.stop()

    def _let_go_if_over(self) -> None:
        """Let go of the rings when nothing is at work: an exception's frames may keep this."""
        if self._is_over and self._server and self._server.at_work() is None:
            self._server = None

    def _adopt(self) -> tuple[Held, ...]:
        """Have the request at work held by its input, once; the lock is held."""
        at_work = self._server.at_work() if self._server else None
        if self._adopted is None and at_work is not None:
            place, request, end, slot = at_work
            # The first source is the channel, whose records are not held.
            source = self._inputs[place - 1] if place else None
            self._adopted = (source.adopt(request, end, slot),) if source else ()
        return self._adopted or ()


def _success(result: Any) -> Outcome:
    """Return what is to be answered for a handler's result."""
    try:
        return Status.RESULT, data_of(result)
    except Exception as error:  # as if the handler had raised it  # noqa: BLE001
        return _failure(error)


def _failure(error: BaseException) -> Outcome:
    """Return what is to be answered for what a handler raised; raise it when it is no failure."""
    if not isinstance(error, Exception):
        raise error
    log.error("the handler failed", exc_info=error)
    return Status.FAILED, message_of(error)


def fast_path(
    channel: Channel, handlers: Handlers | None, lead: Lead, begun: Callable[[], None]
) -> FastPath | None:
    """Return the fast path of a channel; None when its requests can't go one now."""
    if handlers is None or channel.is_leaving or IMPLEMENTATION != "native":
        return None
    if channel.fast is None or channel.fast.handlers is not handlers:
        channel.leave_fast_path()
        channel.fast = FastPath(channel, handlers, lead, begun)
    # It may be with a handler still that another thread runs.
    return None if channel.fast.has_lost_lead else channel.fast
