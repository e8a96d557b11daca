# SPDX-License-Identifier: Apache-2.0
"""How a golden's handler fares until it is checkpointed, and the typed error for how it failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors, processes
from aetherless_snapshotter.sandbox_events import describe_exit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aetherless_common.errors import AetherlessError
    from aetherless_snapshotter.logs import Logs
    from aetherless_snapshotter.netns import TcpSocket
    from aetherless_snapshotter.workshop import Golden

_LOG_LINES = 20
#: An error travels in gRPC's metadata, of which clients take 8 KiB.
_LOG_BYTES = 2048
#: How long the report of a root process's end may take after its end was noticed otherwise.
_REPORT_SECONDS = 0.5
_HANDOVER_SECONDS = 0.25


class HandlerWatch:
    """Watches one start of a handler; made right before it, when its readiness timeout begins.

    Attributes:
        deadline: when the timeout is over, by time.monotonic.
    """

    def __init__(self, golden: Golden, logs: Logs) -> None:
        self._golden = golden
        self._logs = logs
        self._log_begin = logs.position(golden.workload.function_id)
        self.deadline = time.monotonic() + golden.workload.timeout.ToNanoseconds() / 1e9

    def check(self) -> None:
        """See that the root process lives.

        Raises:
            AetherlessError: HANDLER_EXITED, MEMORY_LIMIT_EXCEEDED or PROCESS_LIMIT_EXCEEDED.
        """
        if not self._golden.exited.is_set():
            return
        workload = self._golden.workload
        ended = self._golden.exit()
        if ended is not None and ended.out_of_memory:
            raise errors.memory_limit_exceeded(workload.function_id, workload.memory_limit_bytes)
        raise self._limited() or errors.handler_exited(
            workload.function_id, describe_exit(ended), self._log_tail()
        )

    def check_end(self) -> None:
        """Wait a little for the report of an end that may be the cause of a failure; then check.

        Raises:
            AetherlessError: as ``check``.
        """
        self._golden.exited.wait(_REPORT_SECONDS)
        self.check()

    def check_handover(self, root_pid: int, listeners: Iterable[TcpSocket]) -> None:
        """Give a root process that does not listen itself the time to end.

        Programs that put themselves into the background have their child listen, and end.

        Raises:
            AetherlessError: as ``check``.
        """
        root = processes.host_pid(self._golden.sandbox.init_pid, root_pid)
        if not processes.open_sockets(root) & {listener.inode for listener in listeners}:
            self._golden.exited.wait(_HANDOVER_SECONDS)
        self.check()

    def ready_timeout(self) -> AetherlessError:
        """Return the error for a handler that did not listen, or attach to its channel, in time."""
        workload = self._golden.workload
        return self._limited() or errors.ready_timeout(
            workload.function_id, workload.trigger_port, self._timeout_ms, self._log_tail()
        )

    def warmup_failed(self, problem: str) -> AetherlessError:
        """Return the error for a handler that did not answer in time."""
        workload = self._golden.workload
        return self._limited() or errors.warmup_failed(
            workload.function_id,
            workload.trigger_port,
            problem,
            self._timeout_ms,
            self._log_tail(),
        )

    def _limited(self) -> AetherlessError | None:
        """Return the error for a handler that wanted more processes than it may have."""
        limit = self._golden.sandbox.process_limit_met()
        if not limit:
            return None
        function = self._golden.workload.function_id
        return errors.process_limit_exceeded(function, limit, self._log_tail())

    @property
    def _timeout_ms(self) -> int:
        return self._golden.workload.timeout.ToMilliseconds()

    def _log_tail(self) -> str:
        """Return the last lines that this start of the handler wrote."""
        written = self._logs.since(self._golden.workload.function_id, self._log_begin, _LOG_BYTES)
        return "\n".join(written.decode(errors="replace").splitlines()[-_LOG_LINES:])
