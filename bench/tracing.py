# SPDX-License-Identifier: Apache-2.0
"""What tracing costs a call while it is off: the work of both sides of a call, and no call."""

from __future__ import annotations

import timeit
from typing import Any

from aetherless_common import rpcspan, tracing

METHOD = "/aetherless.registry.v1.RegistryService/GetFunction"
CALLS, ROUNDS = 20_000, 7


class Context:
    """What the server's side reads of gRPC."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what a client without a trace sends."""
        return (("user-agent", "grpc-python"),)


def one_call() -> None:
    """Do what a call's two sides do for tracing."""
    with rpcspan.recording_end(rpcspan.begin_call(METHOD)):
        span = rpcspan.begin_served(METHOD, Context())  # type: ignore[arg-type]  # all that is read
        tracing.make_current(span)
        rpcspan.answered(span)
        tracing.make_current(tracing.NOBODY)


def measure() -> dict[str, Any]:
    """Return the median of some rounds, in microseconds for a call."""
    if tracing.recording() or tracing.wanted():
        raise RuntimeError("unset OTEL_* first: what is measured is tracing that is off")
    rounds = sorted(timeit.repeat(one_call, number=CALLS, repeat=ROUNDS))
    return {"off_us": rounds[ROUNDS // 2] / CALLS * 1e6}
