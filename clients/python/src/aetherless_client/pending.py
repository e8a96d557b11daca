# SPDX-License-Identifier: Apache-2.0
"""A call of another function that is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_client.calls import Response, Status
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
