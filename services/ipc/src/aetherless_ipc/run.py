# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline, and its first leg: the call of the first stage.

A run is a call whose answer comes from another function than the one that was called. Its leg is
over when the first stage has passed its result on; the run when any stage ended it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_ipc import errors
from aetherless_ipc.calls import LONGEST_MESSAGE, Asked, AwaitedCall, Call, ToldCall
from aetherless_ipc.pipeline import Delivery
from aetherless_ipc.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.errors import AetherlessError
    from aetherless_common.tracing import Span
    from aetherless_ipc.pipeline import Pipeline

# What passes an attachment's failure to the caller as the pipeline's own is named by its stage.
FIRST = 0


class Run(Call):
    """A run, to be mixed with how its caller learns of its end.

    Args:
        pipeline: the pipeline.
        data: what the first stage is given.
        timeout: seconds from now to its deadline.
        patient: waits for room in the first stage's ring.
        span: whose context goes with it.
        forget: called with it once it is over.
    """

    def __init__(  # all of it is what a run is
        self,
        pipeline: Pipeline,
        data: bytes,
        timeout: float,
        *,
        patient: bool,
        span: Span,
        forget: Callable[[Run], None],
        **how: object,
    ) -> None:
        first = pipeline.stages[FIRST]
        method = f"{pipeline.wire_name}/{first.stage_id}".encode()
        asked = Asked(first.function_id, method, data, timeout, patient, span)
        super().__init__(asked, **how)
        self.pipeline = pipeline
        # The stage that it failed at; None when it ended otherwise.
        self.failed_at: int | None = None
        self.losses = pipeline.losses
        self.leg = Leg(self, asked)
        self._forget = forget

    @property
    def kind_and_name(self) -> tuple[str, str]:
        """What is run."""
        return "pipeline", self.pipeline.pipeline_id

    def take(self, number: int, status: int, data: bytes) -> bool:
        """Take the answer of a stage; False when it does not end the run, or that was over."""
        if status == Status.PASSED_ON:
            return False
        last = number == len(self.pipeline.stages) - 1
        if status == Status.RESULT and last:
            return self._end(data, None)
        if status == Status.DEADLINE_PASSED:
            return self.fail_at(number, self._timed_out())
        return self.fail_at(number, self._stage_error(number, status, data))

    def lose(self, number: int) -> bool:
        """End it since the process of a stage ended with its record."""
        return self.fail_at(number, errors.stage_lost(self.pipeline.pipeline_id, self._id(number)))

    def fail_at(self, number: int, error: AetherlessError) -> bool:
        """End it by an error at a stage; False when it was over."""
        if not self.is_over:
            self.failed_at = number
        return self.fail(error)

    def ended(self) -> None:
        """Take note of the end, then tell whoever waits."""
        self.woke = self.leg.woke
        self._forget(self)
        super().ended()

    def _id(self, number: int) -> str:
        return self.pipeline.stages[number].stage_id

    def _stage_error(self, number: int, status: int, data: bytes) -> AetherlessError:
        """Return the error for a stage's answer that is no result."""
        stage = self.pipeline.stages[number]
        message = {
            Status.RESULT: "it answered instead of passing its result on",
            Status.NO_METHOD: f"its handler has no method {stage.method!r}",
            Status.FAILED: data[:LONGEST_MESSAGE].decode(errors="replace"),
        }.get(status, f"its answer has the status {status}")  # type: ignore[call-overload]
        return errors.stage_failed(self.pipeline.pipeline_id, stage.stage_id, message)


class AwaitedRun(Run, AwaitedCall):
    """A run whose thread waits for it."""


class ToldRun(Run, ToldCall):
    """A run without a thread: a function is told of its end."""


class Leg(Call):
    """The call of a run's first stage; it has the run's number.

    Args:
        run: the run.
        asked: what it asks of the first stage.
    """

    def __init__(self, run: Run, asked: Asked) -> None:
        super().__init__(asked)
        self.id = run.id
        self.until, self.deadline_ns = run.until, run.deadline_ns
        self._run = run

    def record(self, attempt: int) -> bytes:
        """Return the payload of its record; the run counts with it how often it was delivered."""
        self._run.attempts = attempt
        return super().record(attempt)

    def answer(self, status: int, data: bytes) -> bool:
        """End it by what the first stage answered; the run too, unless that was passed on."""
        good = status in (Status.RESULT, Status.PASSED_ON)
        # Before the run: that gives up a leg that is under way when it ends.
        ended = self._end(b"", None if good else self._error(status, data))
        self._run.take(FIRST, status, data)
        return ended

    def fail(self, error: AetherlessError) -> bool:
        """End it by an error, and the run."""
        over = self._end(b"", error)
        if over:
            self._run.fail_at(FIRST, error)
        return over

    def settle(self) -> None:
        """End it with its run: a later stage may answer before the first says that it is done."""
        run = self._run
        if run.failed_at or not (run.error or run.is_cancelled):
            self._end(b"", None)
        else:
            self.cancel()

    def comes_back(self) -> bool:
        """Tell whether it may be delivered again; ends it, and the run, when it may not."""
        if self._run.pipeline.delivery is Delivery.AT_LEAST_ONCE:
            return True
        self._run.lose(FIRST)
        self._end(b"", None)
        return False
