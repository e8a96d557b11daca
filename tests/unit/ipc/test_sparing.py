# SPDX-License-Identifier: Apache-2.0
"""Log lines that peers bring about: as many as a person reads, and how many more there were."""

from __future__ import annotations

from structlog.testing import capture_logs

from aetherless_ipc.sparing import MOST_IN_A_SECOND, SparingLog
from framework.processes import wait_until

FLOOD = 10_000


def test_a_flood() -> None:
    """One instance's lines are left out and counted; another's, and another event's, are not."""
    log = SparingLog()
    with capture_logs() as lines:
        for number in range(FLOOD):
            log.warning("refused", instance="a", number=number)
        log.warning("refused", instance="b")
        log.info("let in", instance="a")

        def told() -> int:
            log.info("later", instance="c")
            return sum(line.get("left_out_before", 0) for line in lines)

        wait_until(lambda: told() > 0, "what was left out is told")
    written = sum(line["event"] == "refused" and line["instance"] == "a" for line in lines)
    assert MOST_IN_A_SECOND <= written < FLOOD // 2
    assert told() >= FLOOD - written
    assert {("refused", "b"), ("let in", "a")} < {
        (line["event"], line["instance"]) for line in lines
    }
