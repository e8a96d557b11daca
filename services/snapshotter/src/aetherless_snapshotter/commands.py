# SPDX-License-Identifier: Apache-2.0
"""What a call has a sandbox do, with its answers and errors in the contract's words."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aetherless_snapshotter import criu, errors
from aetherless_snapshotter.instance import (
    ARMED,
    CREATED,
    RESTORING,
    RUNNING,
    Instance,
    last_part,
    state_name,
)
from aetherless_snapshotter.sandbox_errors import InFlightError, SandboxError, WrongStateError
from aetherless_snapshotter.sandbox_events import Wake, WakeFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_snapshotter.sandbox import Endpoint, Sandbox

_SETTLE_SECONDS = 5.0
_RETRY_SECONDS = 0.02


def arm(instance: Instance, sandbox: Sandbox, endpoint: Endpoint, images_dir: str) -> None:
    """Hand the endpoint and the request to restore what lies in ``images_dir`` to the init.

    Raises:
        FailedPrecondition: INVALID_STATE_TRANSITION or SANDBOX_FAILED.
    """
    workload = instance.workload
    with _typed(instance, "ARMED"):
        sandbox.arm(
            criu.restore_request(images_dir),
            port=workload.trigger_port,
            deadline_ms=workload.restore_timeout.ToMilliseconds(),
            idle_after_ms=workload.idle_after.ToMilliseconds(),
            endpoint=endpoint,
            answer_within_ms=workload.timeout.ToMilliseconds(),
        )
    _settle(instance, lambda: instance.state != CREATED)


def wake(instance: Instance, sandbox: Sandbox) -> None:
    """Restore now; an instance that runs already is left alone.

    Raises:
        AetherlessError: RESTORE_FAILED, RESTORE_LATENCY_VIOLATION, MEMORY_LIMIT_EXCEEDED,
            INVALID_STATE_TRANSITION or SANDBOX_FAILED.
    """
    _require(instance, "RUNNING", ARMED, RESTORING, RUNNING)
    with _typed(instance, "RUNNING"):
        done = sandbox.wake()
    if done is not None:
        _settle(instance, lambda: _sequence(instance) >= done.sequence)
        _raise_failed(instance, done)
    _settle(instance, lambda: instance.state != RESTORING)


def touch(instance: Instance, sandbox: Sandbox) -> None:
    """Have the idle time begin anew.

    Raises:
        FailedPrecondition: SANDBOX_FAILED.
    """
    with _typed(instance, "RUNNING"):
        sandbox.touch()


def evict(instance: Instance, sandbox: Sandbox, patience: float, last_call: float = 0.0) -> None:
    """End the restored tree and arm again, once nothing is in flight.

    Args:
        instance: the instance.
        sandbox: its sandbox.
        patience: how long to wait for that, in seconds.
        last_call: how long after that what was taken may still be answered, in seconds, while
            nothing more is taken; with zero it goes on instead.

    Raises:
        AetherlessError: REQUEST_IN_FLIGHT when the time is over, INVALID_STATE_TRANSITION or
            SANDBOX_FAILED.
    """
    until = time.monotonic() + patience
    _settle(instance, lambda: instance.state != RESTORING, patience)
    _require(instance, "ARMED", ARMED, RUNNING)
    with _typed(instance, "ARMED"):
        _evict(sandbox, until, round(last_call * 1000))
    _settle(instance, lambda: instance.state != RUNNING)


def _require(instance: Instance, target: str, *origins: int) -> None:
    """Refuse a call that the instance's state does not allow."""
    if instance.state not in origins:
        raise errors.invalid_state_transition(
            instance.instance_id, state_name(instance.state), target
        )


@contextmanager
def _typed(instance: Instance, target: str) -> Iterator[None]:
    """Turn what a sandbox raises into errors of the contract."""
    try:
        yield
    except InFlightError as error:
        raise errors.request_in_flight(instance.instance_id) from error
    except WrongStateError as error:
        raise errors.invalid_state_transition(
            instance.instance_id, state_name(instance.state), target
        ) from error
    except SandboxError as error:
        raise errors.sandbox_failed(instance.instance_id, error.detail) from error


def _evict(sandbox: Sandbox, until: float, last_call_ms: int) -> None:
    """Evict as soon as nothing is in flight; the last try counts when the time is over."""
    while True:
        last = time.monotonic() + _RETRY_SECONDS >= until
        try:
            return sandbox.evict(last_call_ms if last else 0)
        except InFlightError:
            if last:
                raise
            time.sleep(_RETRY_SECONDS)


def _settle(
    instance: Instance, reached: Callable[[], bool], timeout: float = _SETTLE_SECONDS
) -> None:
    """Wait until the sandbox's reports have led to what its answer promised."""
    with instance.changed:
        if not instance.changed.wait_for(reached, timeout):
            raise errors.sandbox_failed(instance.instance_id, "its report did not come")


def _sequence(instance: Instance) -> int:
    """Return the number of the newest wake seen."""
    return instance.last_wake.sequence if instance.last_wake else 0


def _raise_failed(instance: Instance, wake: Wake) -> None:
    """Raise the typed error of a wake that failed."""
    workload = instance.workload
    match wake.failure:
        case WakeFailure.NONE:
            return
        case WakeFailure.LATE:
            took = (wake.answer_ns - wake.syn_ns) / 1e6
            raise errors.restore_latency_violation(workload.function_id, wake.limit_ms, took)
        case WakeFailure.OUT_OF_MEMORY:
            raise errors.memory_limit_exceeded(workload.function_id, workload.memory_limit_bytes)
        case _:
            cause = criu.cause_of(wake.error, wake.error)
            raise errors.restore_failed(workload.function_id, last_part(instance.snapshot), cause)
