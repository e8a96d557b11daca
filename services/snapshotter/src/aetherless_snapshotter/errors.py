# SPDX-License-Identifier: Apache-2.0
"""One constructor per reason of the snapshotter's ``ErrorReason``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    internal,
    invalid_argument,
    watcher_too_slow,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DOMAIN", "internal", "invalid_argument", "watcher_too_slow"]

DOMAIN = "snapshotter.aetherless"
_REBUILD = "deploy the function again"


def handler_not_found(path: str) -> NotFound:
    """Return the error for a handler whose file does not exist."""
    return NotFound(
        "HANDLER_NOT_FOUND",
        f"the handler {path} does not exist",
        {"path": path},
        remedy="correct handler_path",
    )


def handler_not_executable(path: str, problem: str) -> FailedPrecondition:
    """Return the error for a handler that can't be executed."""
    return FailedPrecondition(
        "HANDLER_NOT_EXECUTABLE",
        f"the handler {path} can't be run: {problem}",
        {"path": path, "problem": problem},
        remedy="make it an executable program (chmod +x), or a Python script named .py",
    )


def handler_exited(function: str, status: str, log: str) -> FailedPrecondition:
    """Return the error for a handler that ended before it was ready."""
    return FailedPrecondition(
        "HANDLER_EXITED",
        f"the handler of {function} ended with {status} before it was ready",
        {"function": function, "status": status, "log": log},
        remedy="correct what its last log lines say",
    )


def ready_timeout(function: str, port: int, timeout_ms: int, log: str) -> DeadlineExceeded:
    """Return the error for a handler that did not listen in time; without a port, not attach."""
    metadata = {"function": function, "timeoutMs": timeout_ms, "log": log}
    missed, remedy = (
        "did not attach to its channel",
        "let it serve its channel with a client library, or raise timeout_ms",
    )
    if port:
        metadata["port"] = port
        missed = f"did not listen on port {port}"
        remedy = "let it listen on the port in the variable PORT, or raise timeout_ms"
    text = f"the handler of {function} {missed} within {timeout_ms} ms"
    return DeadlineExceeded("READY_TIMEOUT", text, metadata, remedy=remedy)


def warmup_failed(
    function: str, port: int, problem: str, timeout_ms: int, log: str
) -> FailedPrecondition:
    """Return the error for a handler that listens but does not answer."""
    return FailedPrecondition(
        "WARMUP_FAILED",
        f"the handler of {function} listens on port {port} but gave the warm-up request no answer"
        f" within {timeout_ms} ms: {problem}",
        {
            "function": function,
            "port": port,
            "problem": problem,
            "timeoutMs": timeout_ms,
            "log": log,
        },
        remedy="let it answer the warm-up path, or set warmup to tcp or none",
    )


def not_checkpointable(function: str, cause: str, remedy: str) -> FailedPrecondition:
    """Return the error for a program that holds something that can't be checkpointed."""
    return FailedPrecondition(
        "NOT_CHECKPOINTABLE",
        f"{function} can't be checkpointed: {cause}",
        {"function": function, "cause": cause},
        remedy=remedy,
    )


def criu_not_found(path: Path) -> FailedPrecondition:
    """Return the error for a missing CRIU."""
    return FailedPrecondition(
        "CRIU_NOT_FOUND", f"there is no CRIU at {path}", {"path": path}, remedy="run make setup"
    )


def criu_too_old(path: Path, version: str, required: str) -> FailedPrecondition:
    """Return the error for a CRIU that is too old."""
    return FailedPrecondition(
        "CRIU_TOO_OLD",
        f"CRIU at {path} is version {version}, at least {required} is needed",
        {"path": path, "version": version, "required": required},
        remedy="run make setup",
    )


def dump_failed(function: str, cause: str) -> FailedPrecondition:
    """Return the error for a dump that CRIU refused for a cause without a known remedy."""
    return FailedPrecondition(
        "DUMP_FAILED",
        f"CRIU could not checkpoint {function}: {cause}",
        {"function": function, "cause": cause},
    )


def restore_failed(
    function: str, snapshot: str, cause: str, remedy: str = _REBUILD
) -> FailedPrecondition:
    """Return the error for a restore that CRIU refused, or after which the program is not well."""
    return FailedPrecondition(
        "RESTORE_FAILED",
        f"CRIU could not restore {snapshot} of {function}: {cause}",
        {"function": function, "snapshot": snapshot, "cause": cause},
        remedy=remedy,
    )


def restore_latency_violation(function: str, limit_ms: int, took_ms: float) -> DeadlineExceeded:
    """Return the error for a restore that was ended because it took too long."""
    return DeadlineExceeded(
        "RESTORE_LATENCY_VIOLATION",
        f"the restore of {function} took {took_ms:.1f} ms, more than its limit of {limit_ms} ms",
        {"function": function, "limitMs": limit_ms, "tookMs": f"{took_ms:.1f}"},
        remedy="raise restore_timeout_ms, or make the function's memory smaller",
    )


def restores_too_slow(
    function: str, limit_ms: int, median_ms: float, max_ms: float, suggested_ms: int
) -> DeadlineExceeded:
    """Return the error for trial restores of which the longest was above the limit."""
    return DeadlineExceeded(
        "RESTORE_LATENCY_VIOLATION",
        f"{function} was restored in up to {max_ms:.1f} ms (median {median_ms:.1f} ms), more than"
        f" its limit of {limit_ms} ms; {suggested_ms} ms would do",
        {
            "function": function,
            "limitMs": limit_ms,
            "medianMs": f"{median_ms:.1f}",
            "tookMs": f"{max_ms:.1f}",
            "maxMs": f"{max_ms:.1f}",
            "suggestedMs": suggested_ms,
        },
        remedy=f"set restore_timeout_ms to {suggested_ms}, or make the function's memory smaller;"
        " on a host that is busy now, deploy again when it is not",
    )


def snapshot_not_found(snapshot: str) -> NotFound:
    """Return the error for a snapshot that does not exist."""
    return NotFound(
        "SNAPSHOT_NOT_FOUND", f"there is no snapshot {snapshot}", {"snapshot": snapshot}
    )


def snapshot_corrupt(snapshot: str, file: str, expected: str, actual: str) -> DataLoss:
    """Return the error for a snapshot's file that is not what its manifest says."""
    return DataLoss(
        "SNAPSHOT_CORRUPT",
        f"{file} of snapshot {snapshot} is damaged: expected {expected}, found {actual}",
        {"snapshot": snapshot, "file": file, "expected": expected, "actual": actual},
        remedy=_REBUILD,
    )


def snapshot_incompatible(
    snapshot: str, what: str, expected: str, actual: str
) -> FailedPrecondition:
    """Return the error for a snapshot of another kernel, CRIU or processor."""
    return FailedPrecondition(
        "SNAPSHOT_INCOMPATIBLE",
        f"snapshot {snapshot} was made with {what} {expected}, this host has {actual}",
        {"snapshot": snapshot, "what": what, "expected": expected, "actual": actual},
        remedy=_REBUILD,
    )


def snapshot_stale(snapshot: str, file: str, expected: str, actual: str) -> FailedPrecondition:
    """Return the error for a snapshot that relies on a file of the host which changed since."""
    return FailedPrecondition(
        "SNAPSHOT_STALE",
        f"snapshot {snapshot} was made with another {file}: expected {expected}, found {actual}",
        {"snapshot": snapshot, "file": file, "expected": expected, "actual": actual},
        remedy="wait until it is made anew, or deploy the function again",
    )


def instance_not_found(instance: str) -> NotFound:
    """Return the error for an instance that does not exist."""
    return NotFound(
        "INSTANCE_NOT_FOUND", f"there is no instance {instance}", {"instance": instance}
    )


def instance_exists(instance: str) -> AlreadyExists:
    """Return the error for an id that an instance with another workload has."""
    return AlreadyExists(
        "INSTANCE_EXISTS",
        f"instance {instance} exists with another workload, role or snapshot",
        {"instance": instance},
        remedy="delete it first, or choose another id",
    )


def invalid_state_transition(instance: str, before: str, after: str) -> FailedPrecondition:
    """Return the error for a change that the instance's state does not allow."""
    return FailedPrecondition(
        "INVALID_STATE_TRANSITION",
        f"instance {instance} is {before} and can't become {after}",
        {"instance": instance, "from": before, "to": after},
    )


def operation_in_progress(resource: str) -> Aborted:
    """Return the error for a resource that another call works on."""
    return Aborted(
        "OPERATION_IN_PROGRESS",
        f"another call is at work on {resource}",
        {"resource": resource},
        remedy="read its state again, then retry",
    )


def snapshot_in_use(snapshot: str, instance: str) -> Aborted:
    """Return the error for a snapshot that an instance still restores."""
    return Aborted(
        "OPERATION_IN_PROGRESS",
        f"snapshot {snapshot} is in use by instance {instance}",
        {"resource": f"snapshots/{snapshot}", "instance": instance},
        remedy="delete the instance first",
    )


def root_in_use(name: str) -> Aborted:
    """Return the error for a copy of a folder that an instance or a snapshot still needs."""
    return Aborted(
        "OPERATION_IN_PROGRESS",
        f"{name} is in use by an instance or a snapshot",
        {"resource": name},
        remedy="delete them first",
    )


def kernel_feature_missing(feature: str, message: str, remedy: str) -> FailedPrecondition:
    """Return the error for something that the host lacks."""
    return FailedPrecondition(
        "KERNEL_FEATURE_MISSING", message, {"feature": feature}, remedy=remedy
    )


def no_holes(folder: Path) -> FailedPrecondition:
    """Return the error for a folder of snapshots whose file system can't punch holes."""
    return kernel_feature_missing(
        "hole punching",
        f"the file system of {folder} can't punch holes into files (fallocate(2))",
        "choose a folder of a tmpfs, ext4, xfs or btrfs (orchestrator.snapshot_dir)",
    )


def sandbox_failed(instance: str, cause: str) -> FailedPrecondition:
    """Return the error for a sandbox that could not be made, or does not do what it should."""
    return FailedPrecondition(
        "SANDBOX_FAILED",
        f"the sandbox of {instance} failed: {cause}",
        {"instance": instance, "cause": cause},
    )


def memory_limit_exceeded(function: str, limit_bytes: int) -> ResourceExhausted:
    """Return the error for a function that was ended because it used too much memory."""
    return ResourceExhausted(
        "MEMORY_LIMIT_EXCEEDED",
        f"{function} used more memory than its limit of {limit_bytes >> 20} MiB and was ended",
        {"function": function, "limitBytes": limit_bytes},
        remedy="raise memory_limit_mb",
    )


def process_limit_exceeded(function: str, limit: int, log: str) -> ResourceExhausted:
    """Return the error for a handler that wanted more processes and threads than it may have."""
    return ResourceExhausted(
        "PROCESS_LIMIT_EXCEEDED",
        f"{function} wanted more than its limit of {limit} processes and threads",
        {"function": function, "limit": limit, "log": log},
        remedy="let it start fewer; each process and each thread counts",
    )


def request_in_flight(instance: str) -> FailedPrecondition:
    """Return the error for an eviction while a client waits for an answer."""
    return FailedPrecondition(
        "REQUEST_IN_FLIGHT",
        f"a client waits for an answer of {instance}",
        {"instance": instance},
        remedy="retry when it was answered",
    )


def log_not_found(function: str) -> NotFound:
    """Return the error for a function that has no log yet."""
    return NotFound("LOG_NOT_FOUND", f"there is no log of {function} yet", {"function": function})


def storage_full(path: Path, needed_bytes: int, free_bytes: int) -> ResourceExhausted:
    """Return the error for a folder whose file system has no room for what is to be written."""
    return ResourceExhausted(
        "STORAGE_FULL",
        f"{path} has {free_bytes >> 10} KiB free, {needed_bytes >> 10} KiB are needed",
        {"path": path, "neededBytes": needed_bytes, "freeBytes": free_bytes},
        remedy="free space there, delete functions, or choose a larger folder"
        " (orchestrator.snapshot_dir, AETHER_STATE_DIR)",
    )


def root_not_copyable(path: str, problem: str) -> FailedPrecondition:
    """Return the error for a function's folder with something in it that can't be copied."""
    return FailedPrecondition(
        "ROOT_NOT_COPYABLE",
        f"{path} can't be copied: {problem}",
        {"path": path, "problem": problem},
        remedy="remove it from the function's folder, or set root to another folder",
    )


def root_too_large(path: str, size_bytes: int, limit_bytes: int) -> FailedPrecondition:
    """Return the error for a function's folder that is too large to be copied."""
    return FailedPrecondition(
        "ROOT_TOO_LARGE",
        f"{path} holds {size_bytes >> 20} MiB, at most {limit_bytes >> 20} MiB are copied",
        {"path": path, "sizeBytes": size_bytes, "limitBytes": limit_bytes},
        remedy="set root to a smaller folder, and name large read-only data in mounts",
    )
