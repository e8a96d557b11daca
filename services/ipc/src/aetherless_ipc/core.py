# SPDX-License-Identifier: Apache-2.0
"""Which processor core the service's threads run on: one, for all of them.

A call passes through seven of its threads, gRPC's and ours, one after the other. The interpreter
runs one at a time anyhow. On one core the next one costs a change of context; on two it is often
the wake-up of a core that sleeps, tens of microseconds on a virtual machine.
"""

from __future__ import annotations

import os
from pathlib import Path

# The field "processor" of /proc/pid/stat, counted from the one behind the name; see proc(5).
_PROCESSOR = 36


def stay_on_one_core() -> int:
    """Keep this process on the core that it runs on, where the kernel put it at its start.

    Holds for this thread and those that are started from now on. The kernel moves whatever else
    runs there to other cores; when the core is taken away, it lets the threads run on any.

    Returns:
        The core's number.
    """
    fields = Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()
    core = int(fields[_PROCESSOR])
    os.sched_setaffinity(0, {core})
    return core
