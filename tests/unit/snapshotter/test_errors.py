# SPDX-License-Identifier: Apache-2.0
"""Every reason of the contract has a constructor, and carries the metadata its comment promises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import error_reason_pb2
from aetherless_snapshotter import errors

if TYPE_CHECKING:
    from aetherless_common.errors import AetherlessError

CASES: list[tuple[AetherlessError, str]] = [
    (errors.internal(), ""),
    (errors.invalid_argument("field", "problem"), "field problem"),
    (errors.handler_not_found("/h"), "path"),
    (errors.handler_not_executable("/h", "why"), "path problem"),
    (errors.handler_exited("f", "status 1", "log"), "function status log"),
    (errors.ready_timeout("f", 1, 2, "log"), "function port timeoutMs log"),
    (errors.warmup_failed("f", 1, "why", 2, "log"), "function port problem timeoutMs log"),
    (errors.not_checkpointable("f", "why", "do"), "function cause remedy"),
    (errors.criu_not_found(Path("/c")), "path remedy"),
    (errors.criu_too_old(Path("/c"), "1", "2"), "path version required remedy"),
    (errors.dump_failed("f", "why"), "function cause"),
    (errors.restore_failed("f", "s", "why"), "function snapshot cause"),
    (errors.restore_latency_violation("f", 15, 16.0), "function limitMs tookMs"),
    (
        errors.restores_too_slow("f", 15, 9.0, 20.0, 30),
        "function limitMs medianMs maxMs suggestedMs",
    ),
    (errors.snapshot_not_found("s"), "snapshot"),
    (errors.snapshot_corrupt("s", "file", "a", "b"), "snapshot file expected actual"),
    (errors.snapshot_incompatible("s", "cpu", "a", "b"), "snapshot what expected actual"),
    (errors.snapshot_stale("s", "/lib/x", "a", "b"), "snapshot file expected actual"),
    (errors.instance_not_found("i"), "instance"),
    (errors.instance_exists("i"), "instance"),
    (errors.invalid_state_transition("i", "A", "B"), "instance from to"),
    (errors.operation_in_progress("instances/i"), "resource"),
    (errors.kernel_feature_missing("x", "no x", "get x"), "feature remedy"),
    (errors.sandbox_failed("i", "why"), "instance cause"),
    (errors.memory_limit_exceeded("f", 1 << 20), "function limitBytes"),
    (errors.process_limit_exceeded("f", 9, "log"), "function limit log"),
    (errors.storage_full(Path("/s"), 2, 1), "path neededBytes freeBytes remedy"),
    (errors.root_not_copyable("/r/x", "why"), "path problem"),
    (errors.request_in_flight("i"), "instance"),
    (errors.log_not_found("f"), "function"),
    (errors.root_too_large("/r", 2, 1), "path sizeBytes limitBytes remedy"),
    (errors.watcher_too_slow(9), "queueLimit"),
]


@pytest.mark.parametrize(("error", "keys"), CASES, ids=[error.reason for error, _ in CASES])
def test_metadata(error: AetherlessError, keys: str) -> None:
    """All promised keys are there and none is empty."""
    assert set(keys.split()) <= set(error.metadata)
    assert all(error.metadata.values())


def test_every_reason_has_a_constructor() -> None:
    """The contract's enum and this list are the same."""
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 # no mapping
    assert {error.reason for error, _ in CASES} == names - {"UNSPECIFIED"}
