# SPDX-License-Identifier: Apache-2.0
"""What a check says, from what the snapshotter told of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.registry.v1 import check_pb2, function_pb2
from aetherless.snapshotter.v1 import snapshot_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_common.errors import AetherlessError

# The phases of a snapshot that end with the program's first answer.
_START = frozenset({"start", "ready", "warm-up"})
_SEVERITIES = {
    snapshot_pb2.FINDING_SEVERITY_INFO: check_pb2.FINDING_SEVERITY_INFO,
    snapshot_pb2.FINDING_SEVERITY_WARNING: check_pb2.FINDING_SEVERITY_WARNING,
    snapshot_pb2.FINDING_SEVERITY_REFUSED: check_pb2.FINDING_SEVERITY_REFUSED,
}


def findings(found: Iterable[snapshot_pb2.Finding]) -> list[check_pb2.Finding]:
    """Return the snapshotter's findings as the registry has them."""
    return [
        check_pb2.Finding(
            subject=each.subject,
            severity=_SEVERITIES.get(each.severity, check_pb2.FINDING_SEVERITY_UNSPECIFIED),
            message=each.message,
            remedy=each.remedy,
            pid=each.pid,
            command=each.command,
        )
        for each in found
    ]


def report(
    golden: instance_pb2.Instance, snapshot: snapshot_pb2.Snapshot, trial: snapshot_pb2.Trial
) -> check_pb2.CheckReport:
    """Return the report of a check that came to its end."""
    phases = {phase.name: phase.duration.ToNanoseconds() for phase in snapshot.phases}
    made = check_pb2.CheckReport(
        findings=findings(snapshot.findings),
        restores=trial.restores,
        suggested_restore_timeout=trial.suggested_timeout,
        snapshot_bytes=snapshot.size_bytes,
        resident_bytes=snapshot.resident_bytes,
        processes=len(snapshot.processes),
        command=golden.command,
    )
    if trial.HasField("first_answer"):
        made.first_answer.CopyFrom(trial.first_answer)
    made.start_duration.FromNanoseconds(sum(phases.get(name, 0) for name in _START))
    made.dump_duration.FromNanoseconds(phases.get("dump", 0))
    return made


def renamed(error: AetherlessError, check: str, function: str) -> AetherlessError:
    """Return an error that speaks of the function, and not of the check of it."""
    metadata = {key: value.replace(check, function) for key, value in error.metadata.items()}
    return type(error)(
        error.reason,
        error.message.replace(check, function),
        metadata,
        domain=error.domain,
        violations=error.violations,
    )


def shown(
    progress: function_pb2.DeployProgress, check: str, function: str
) -> function_pb2.DeployProgress:
    """Return a step's progress in words that speak of the function."""
    progress.detail = progress.detail.replace(check, function)
    return progress
