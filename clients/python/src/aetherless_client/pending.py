# SPDX-License-Identifier: Apache-2.0
"""A call of another function that is under way, and how long it may take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aetherless_client.calls import Response, Status, current
from aetherless_client.channel import FOREVER
from aetherless_client.errors import ClientError, InvocationTimeoutError, call_error

if TYPE_CHECKING:
    from aetherless_client.channel import Channel


class Pending:
    """A call that is under way."""

    def __init__(self, function: str, channel: Channel) -> None:
        self.function = function
        self.channel = channel
        self.response: Response | None = None
        self.error: ClientError | None = None

    def is_done(self) -> bool:
        """Whether there is an answer, or will be none."""
        return self.response is not None or self.error is not None

    def result(self) -> bytes:
        """Return what the function returned; raises what it did not."""
        if self.error is not None:
            raise self.error
        if self.response is None:
            raise InvocationTimeoutError(self.function)
        if self.response.status != Status.RESULT:
            raise call_error(self.function, self.response.status, self.response.data)
        return self.response.data


def limits(timeout: float | None) -> tuple[float, int]:
    """Return a call's limits by the monotonic clock and by the real one, 0 for none."""
    now, request = time.time_ns(), current.get(None)
    deadline_ns = 0 if timeout is None else now + int(timeout * 1e9)
    if request and request.deadline_ns and not 0 < deadline_ns < request.deadline_ns:
        deadline_ns = request.deadline_ns
    if not deadline_ns:
        return FOREVER, 0
    return time.monotonic() + (deadline_ns - now) / 1e9, deadline_ns
