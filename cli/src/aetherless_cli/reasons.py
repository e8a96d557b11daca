# SPDX-License-Identifier: Apache-2.0
"""What to do about each reason, and the class it belongs to.

The class is needed where a reason comes without its code: in a failed deploy and a failed wake.
A test compares this table with the ErrorReason enums of ``protos/``; docs/errors.md is made of
both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common.errors import CLASSES, AetherlessError, Internal

if TYPE_CHECKING:
    from collections.abc import Mapping

_BUG = ("INTERNAL", "see the service's log in the state folder (log/SERVICE.log), and report it")
_REQUEST = ("INVALID_ARGUMENT", "correct the named field")
_AGAIN = "wait until it has ended, then try again"

REGISTRY = {
    "INTERNAL": _BUG,
    "INVALID_ARGUMENT": _REQUEST,
    "CONFIG_INVALID": ("INVALID_ARGUMENT", "correct the named field; aetherctl validate checks it"),
    "FUNCTION_NOT_FOUND": ("NOT_FOUND", "aetherctl list shows the functions there are"),
    "PORT_IN_USE": ("FAILED_PRECONDITION", "choose another trigger_port for one of the two"),
    "INVALID_STATE_TRANSITION": (
        "FAILED_PRECONDITION",
        "see the present state with aetherctl describe, then decide anew",
    ),
    "ETAG_MISMATCH": ("ABORTED", "read the function or pipeline again, then repeat the change"),
    "REVISION_COMPACTED": ("OUT_OF_RANGE", "list the functions, then watch from that revision"),
    "WATCHER_TOO_SLOW": ("RESOURCE_EXHAUSTED", "read faster, or watch one function only"),
    "PEER_UNREACHABLE": ("UNAVAILABLE", "start the services with aetherctl up"),
    "PEER_TIMEOUT": ("DEADLINE_EXCEEDED", "try again; see the service's log if it stays"),
    "OPERATION_IN_PROGRESS": ("ABORTED", _AGAIN),
    "FUNCTION_IN_USE": (
        "FAILED_PRECONDITION",
        "deploy --prune a file without the pipeline first",
    ),
    "REVISION_NOT_FOUND": (
        "NOT_FOUND",
        "aetherctl describe shows the revisions that are kept; deploy other files anew",
    ),
    "TOO_MANY_CHECKS": ("RESOURCE_EXHAUSTED", "wait until one of them has ended, then check again"),
}
SNAPSHOTTER = {
    "INTERNAL": _BUG,
    "INVALID_ARGUMENT": _REQUEST,
    "HANDLER_NOT_FOUND": ("NOT_FOUND", "correct handler_path"),
    "HANDLER_NOT_EXECUTABLE": (
        "FAILED_PRECONDITION",
        "chmod +x the handler, and check its #! line and its architecture",
    ),
    "HANDLER_EXITED": (
        "FAILED_PRECONDITION",
        "the program's own words are in the log lines; it must go on running and listen on PORT",
    ),
    "READY_TIMEOUT": (
        "DEADLINE_EXCEEDED",
        "listen on the port in PORT (without one, serve the channel), or raise timeout_ms",
    ),
    "WARMUP_FAILED": (
        "FAILED_PRECONDITION",
        "make the program answer GET warmup.path with any status, or set warmup: tcp or none",
    ),
    "NOT_CHECKPOINTABLE": (
        "FAILED_PRECONDITION",
        "the message names what can't be checkpointed; turn it off in the program",
    ),
    "CRIU_NOT_FOUND": ("FAILED_PRECONDITION", "run 'make setup', or set AETHER_PREFIX"),
    "CRIU_TOO_OLD": ("FAILED_PRECONDITION", "run 'make setup': it builds the version needed"),
    "DUMP_FAILED": (
        "FAILED_PRECONDITION",
        "CRIU's cause is in the message; aetherctl doctor tells whether this host can dump at all",
    ),
    "RESTORE_FAILED": (
        "FAILED_PRECONDITION",
        "CRIU's cause is in the message; deploy the function again to make a new snapshot",
    ),
    "RESTORE_LATENCY_VIOLATION": (
        "DEADLINE_EXCEEDED",
        "raise restore_timeout_ms to the value named, or make the program smaller",
    ),
    "SNAPSHOT_NOT_FOUND": ("NOT_FOUND", "deploy the function again to make one"),
    "SNAPSHOT_CORRUPT": (
        "DATA_LOSS",
        "deploy the function again to make a new one; find out what changed the file",
    ),
    "SNAPSHOT_INCOMPATIBLE": (
        "FAILED_PRECONDITION",
        "deploy the function again: kernel, CRIU or processor are not those of the snapshot",
    ),
    "SNAPSHOT_STALE": (
        "FAILED_PRECONDITION",
        "the function is made anew by itself; if that failed, deploy it again",
    ),
    "INSTANCE_NOT_FOUND": ("NOT_FOUND", "aetherctl describe shows a function's instances"),
    "INSTANCE_EXISTS": ("ALREADY_EXISTS", "delete the instance first, or use another id"),
    "INVALID_STATE_TRANSITION": (
        "FAILED_PRECONDITION",
        "see the instance's state with aetherctl describe, then decide anew",
    ),
    "OPERATION_IN_PROGRESS": ("ABORTED", _AGAIN),
    "KERNEL_FEATURE_MISSING": ("FAILED_PRECONDITION", "aetherctl doctor names what to change"),
    "SANDBOX_FAILED": (
        "FAILED_PRECONDITION",
        "the cause is in the message; aetherctl doctor checks the host",
    ),
    "MEMORY_LIMIT_EXCEEDED": ("RESOURCE_EXHAUSTED", "raise memory_limit_mb"),
    "PROCESS_LIMIT_EXCEEDED": (
        "RESOURCE_EXHAUSTED",
        "make the program start fewer processes and threads",
    ),
    "STORAGE_FULL": (
        "RESOURCE_EXHAUSTED",
        "free space there, delete functions, or choose another snapshot_dir or AETHER_STATE_DIR",
    ),
    "ROOT_NOT_COPYABLE": (
        "FAILED_PRECONDITION",
        "remove what is named from the function's folder, or set root to another folder",
    ),
    "REQUEST_IN_FLIGHT": ("FAILED_PRECONDITION", "try again when the client has its answer"),
    "LOG_NOT_FOUND": ("NOT_FOUND", "the function has not run yet; deploy it first"),
    "ROOT_TOO_LARGE": (
        "FAILED_PRECONDITION",
        "set root to a smaller folder, or move large data out and name it under mounts",
    ),
    "WATCHER_TOO_SLOW": ("RESOURCE_EXHAUSTED", "list again, then watch anew"),
}
NETPLANE = {
    "INTERNAL": _BUG,
    "INVALID_ARGUMENT": _REQUEST,
    "KERNEL_FEATURE_MISSING": ("FAILED_PRECONDITION", "aetherctl doctor names what to change"),
    "BPF_LOAD_FAILED": (
        "FAILED_PRECONDITION",
        "the verifier's words are in the log; kernel 6.6 or newer with BTF is needed",
    ),
    "BPF_ATTACH_FAILED": ("FAILED_PRECONDITION", "aetherctl doctor names what is in the way"),
    "BPF_MAP_FULL": ("RESOURCE_EXHAUSTED", "delete functions that are not needed"),
    "ADDRESS_RANGE_IN_USE": (
        "FAILED_PRECONDITION",
        "free the range that the message names: another network of this host uses it",
    ),
    "PORT_IN_USE": (
        "FAILED_PRECONDITION",
        "end the process that the message names, or choose another trigger_port",
    ),
    "ROUTE_NOT_FOUND": ("NOT_FOUND", "aetherctl list shows which ports are routed"),
    "ENDPOINT_NOT_FOUND": ("NOT_FOUND", "aetherctl describe shows a function's instances"),
    "ENDPOINT_EXISTS": ("ALREADY_EXISTS", "detach the endpoint first, or use another id"),
    "ENDPOINT_IN_USE": ("FAILED_PRECONDITION", "delete or change the route first"),
    "NETNS_UNREACHABLE": ("FAILED_PRECONDITION", "the sandbox is gone; deploy the function again"),
    "LINK_FAILED": (
        "FAILED_PRECONDITION",
        "the kernel's errno is in the message; aetherctl doctor checks the host",
    ),
    "WATCHER_TOO_SLOW": ("RESOURCE_EXHAUSTED", "watch anew"),
}
IPC = {
    "INTERNAL": _BUG,
    "INVALID_ARGUMENT": _REQUEST,
    "CHANNEL_NOT_FOUND": (
        "NOT_FOUND",
        "declare the function with ipc: true, and wait until it is deployed",
    ),
    "CHANNEL_EXISTS": ("ALREADY_EXISTS", "delete the channel first, or use another id"),
    "REGION_INVALID": ("FAILED_PRECONDITION", "the kernel's errno is in the message"),
    "INVOCATION_TIMEOUT": ("DEADLINE_EXCEEDED", "allow more time, or see the function's log"),
    "RING_FULL": (
        "RESOURCE_EXHAUSTED",
        "call again later, wait for room (wait_for_room), or raise shm_buffer_size",
    ),
    "PAYLOAD_TOO_LARGE": ("INVALID_ARGUMENT", "send less at once, or raise shm_buffer_size"),
    "HANDLER_FAILED": (
        "FAILED_PRECONDITION",
        "the message is the handler's own; aetherctl logs shows what the function wrote",
    ),
    "METHOD_NOT_FOUND": ("NOT_FOUND", "call a method that the handler serves"),
    "RING_CORRUPT": ("DATA_LOSS", "the function wrote what it may not; see its log"),
    "PEER_GONE": ("UNAVAILABLE", "call again when the function is deployed"),
    "CALL_NOT_ALLOWED": ("FAILED_PRECONDITION", "name the function in the caller's may_call"),
    "CALLS_IN_FLIGHT": ("FAILED_PRECONDITION", "try again when the calls are answered"),
    "CHANNEL_NOT_READY": (
        "FAILED_PRECONDITION",
        "wait until the function is deployed; aetherctl describe shows where it stands",
    ),
    "PIPELINE_NOT_FOUND": ("NOT_FOUND", "aetherctl pipeline list shows the pipelines there are"),
    "PIPELINE_EXISTS": ("ALREADY_EXISTS", "delete the pipeline first, or use another id"),
    "STAGE_FAILED": (
        "FAILED_PRECONDITION",
        "the message is the handler's own; aetherctl logs shows what the stage's function wrote",
    ),
    "STAGE_LOST": ("UNAVAILABLE", "run it again if it may be worked on twice"),
}
CLI = {
    "INTERNAL": ("INTERNAL", "run it again with -v for the details, and report it"),
    "INVALID_ARGUMENT": _REQUEST,
    "CONFIG_INVALID": ("INVALID_ARGUMENT", "correct the lines that are named"),
    "CONFIG_NOT_FOUND": ("NOT_FOUND", "name the file with -c FILE"),
    "ROOT_UNREADABLE": (
        "FAILED_PRECONDITION",
        "make the function's folder readable, or set root to another one",
    ),
    "NOT_ROOT": ("FAILED_PRECONDITION", "run it as root"),
    "HOST_NOT_READY": ("FAILED_PRECONDITION", "follow the remedies; aetherctl doctor checks again"),
    "NOT_SET_UP": ("FAILED_PRECONDITION", "run 'make setup' as root, or set AETHER_PREFIX"),
    "FOLDER_IN_USE": (
        "FAILED_PRECONDITION",
        "choose other folders with AETHER_RUNTIME_DIR and AETHER_STATE_DIR",
    ),
    "MACHINE_ID_MISSING": ("FAILED_PRECONDITION", "run systemd-machine-id-setup"),
    "KERNEL_FEATURE_MISSING": ("FAILED_PRECONDITION", "aetherctl doctor names what to change"),
    "SERVICE_RUNNING": ("FAILED_PRECONDITION", "end it with aetherctl down"),
    "OPERATION_IN_PROGRESS": ("ABORTED", _AGAIN),
    "SERVICE_START_FAILED": ("UNAVAILABLE", "see the log lines; aetherctl doctor checks the host"),
    "SETTINGS_CHANGED": ("FAILED_PRECONDITION", "run aetherctl down, then aetherctl up again"),
    "TAKEN_DOWN": ("ABORTED", "run aetherctl up again"),
    "WAKE_NOT_FOUND": ("NOT_FOUND", "call the function once, then try again"),
    "CLEANUP_FAILED": ("INTERNAL", "run aetherctl down again"),
    "INTERRUPTED": ("ABORTED", "run it again"),
    "PEER_UNREACHABLE": ("UNAVAILABLE", "start the services with aetherctl up"),
    "PEER_TIMEOUT": ("DEADLINE_EXCEEDED", "try again; see the service's log if it stays"),
}
BY_DOMAIN: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "cli": CLI,
    "registry": REGISTRY,
    "snapshotter": SNAPSHOTTER,
    "netplane": NETPLANE,
    "ipc": IPC,
}


def remedy_for(domain: str, reason: str) -> str:
    """Return what to do about a reason; empty when it is not known."""
    return _entry(domain, reason)[1]


def error_of(
    domain: str, reason: str, message: str, metadata: Mapping[str, str]
) -> AetherlessError:
    """Return the typed error for a reason that came without its code."""
    cls = CLASSES.get(_entry(domain, reason)[0], Internal)
    return cls(reason, message, metadata, domain=domain)


def _entry(domain: str, reason: str) -> tuple[str, str]:
    service = domain.removesuffix(".aetherless") or "cli"
    return BY_DOMAIN.get(service, CLI).get(reason, ("INTERNAL", ""))
