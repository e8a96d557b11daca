# SPDX-License-Identifier: Apache-2.0
"""What trial restores mean for those who deploy, in words and figures. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from aetherless.snapshotter.v1 import snapshot_pb2

# The reason of the event that tells of restores that are not far enough below their limit.
NEAR_LIMIT = "RESTORE_LATENCY_NEAR_LIMIT"


def is_near(trial: snapshot_pb2.Trial, limit: Duration) -> bool:
    """Tell whether twice the median restore is above the limit: a busy host would break it."""
    return 2 * trial.median.ToNanoseconds() > limit.ToNanoseconds()


def figures(trial: snapshot_pb2.Trial, limit: Duration) -> dict[str, object]:
    """Return a trial's figures as an event's metadata."""
    return {
        "limitMs": limit.ToMilliseconds(),
        "medianMs": f"{_ms(trial.median):.1f}",
        "maxMs": f"{_ms(trial.maximum):.1f}",
        "suggestedMs": trial.suggested_timeout.ToMilliseconds(),
    }


def describe(trial: snapshot_pb2.Trial, limit: Duration) -> str:
    """Return a trial in one line, with the limit that would do when this one is near."""
    text = (
        f"{len(trial.restores)} restores, median {_ms(trial.median):.1f} ms,"
        f" longest {_ms(trial.maximum):.1f} ms, limit {limit.ToMilliseconds()} ms"
    )
    if trial.HasField("first_answer"):
        text += f"; first answer after {_ms(trial.first_answer):.1f} ms"
    if is_near(trial, limit):
        suggested = trial.suggested_timeout.ToMilliseconds()
        text += f"; warning: near the limit, {suggested} ms would leave room"
    return text


def progress(step: str, trial: snapshot_pb2.Trial, limit: Duration) -> function_pb2.DeployProgress:
    """Return a trial as a deploy's progress."""
    told = function_pb2.DeployProgress(
        step=step,
        phase="restores",
        state=function_pb2.PROGRESS_STATE_DONE,
        detail=describe(trial, limit),
    )
    told.duration.FromNanoseconds(sum(each.ToNanoseconds() for each in trial.restores))
    return told


def _ms(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e6
