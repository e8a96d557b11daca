# SPDX-License-Identifier: Apache-2.0
"""One constructor for each reason of the netplane's ErrorReason."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from aetherless_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    internal,
    invalid_argument,
    watcher_too_slow,
)

if TYPE_CHECKING:
    from aetherless_netplane.libbpf import BpfError

__all__ = [
    "address_range_in_use",
    "bpf_attach_failed",
    "bpf_load_failed",
    "bpf_map_full",
    "endpoint_exists",
    "endpoint_in_use",
    "endpoint_not_found",
    "internal",
    "invalid_argument",
    "kernel_feature_missing",
    "link_failed",
    "netns_unreachable",
    "port_in_use",
    "route_not_found",
    "watcher_too_slow",
]

LOG_TAIL = 2000


def errno_name(number: int | None) -> str:
    """Return the symbol of an errno, EPERM for 1."""
    return errno.errorcode.get(number or 0, str(number))


def kernel_feature_missing(feature: str, message: str, remedy: str) -> FailedPrecondition:
    """Return the error for a kernel or a host that lacks something."""
    metadata = {"feature": feature}
    return FailedPrecondition("KERNEL_FEATURE_MISSING", message, metadata, remedy=remedy)


def bpf_load_failed(name: str, error: BpfError) -> FailedPrecondition:
    """Return the error for an object that the kernel, or the file system, refused."""
    metadata = {"object": name, "log": error.log[-LOG_TAIL:], "errno": errno_name(error.errno)}
    remedy = "run make setup, which builds the objects for this kernel; then report the log"
    message = f"the BPF object {name} was refused: {error.strerror}"
    return FailedPrecondition("BPF_LOAD_FAILED", message, metadata, remedy=remedy)


def bpf_attach_failed(program: str, target: str, error: OSError) -> FailedPrecondition:
    """Return the error for a program that could not be attached."""
    metadata = {"program": program, "target": target, "errno": errno_name(error.errno)}
    message = f"the BPF program {program} can't be attached to {target}: {error.strerror}"
    remedy = ""
    if error.errno == errno.EPERM:
        remedy = "another program is attached there exclusively: see bpftool cgroup show " + target
    return FailedPrecondition("BPF_ATTACH_FAILED", message, metadata, remedy=remedy)


def bpf_map_full(name: str, entries: int) -> ResourceExhausted:
    """Return the error for a map, or a range of addresses, with no free entry."""
    metadata = {"map": name, "entries": entries}
    return ResourceExhausted("BPF_MAP_FULL", f"all {entries} entries of {name} are taken", metadata)


def address_range_in_use(address_range: str, by: str) -> FailedPrecondition:
    """Return the error for a range that the host uses for something else."""
    return FailedPrecondition(
        "ADDRESS_RANGE_IN_USE",
        f"the address range {address_range} is used on this host by {by}",
        {"range": address_range, "by": by},
        remedy="remove it, or use another AETHER_RUNTIME_DIR: it chooses the range",
    )


def port_in_use(port: int, process: str, pid: int | None) -> FailedPrecondition:
    """Return the error for a trigger port that somebody has."""
    what = f"process {pid}" if pid else "it"
    return FailedPrecondition(
        "PORT_IN_USE",
        f"port {port} is in use by {process}" + (f" (process {pid})" if pid else ""),
        {"port": port, "process": process, "pid": pid or "unknown"},
        remedy=f"end {what}, or give the function another trigger_port",
    )


def route_not_found(name: str) -> NotFound:
    """Return the error for a route that does not exist."""
    return NotFound("ROUTE_NOT_FOUND", f"there is no route {name}", {"route": name})


def endpoint_not_found(name: str) -> NotFound:
    """Return the error for an endpoint that does not exist."""
    return NotFound("ENDPOINT_NOT_FOUND", f"there is no endpoint {name}", {"endpoint": name})


def endpoint_exists(name: str) -> AlreadyExists:
    """Return the error for an endpoint that leads to another sandbox."""
    message = f"{name} leads to another sandbox"
    return AlreadyExists("ENDPOINT_EXISTS", message, {"endpoint": name})


def endpoint_in_use(name: str, route: str) -> FailedPrecondition:
    """Return the error for an endpoint that a route leads to."""
    return FailedPrecondition(
        "ENDPOINT_IN_USE",
        f"{route} leads to {name}",
        {"endpoint": name, "route": route},
        remedy=f"set {route} to another endpoint, or delete it, first",
    )


def netns_unreachable(path: str, number: int) -> FailedPrecondition:
    """Return the error for a network namespace that can't be entered."""
    return FailedPrecondition(
        "NETNS_UNREACHABLE",
        f"the network namespace {path} can't be entered: {os.strerror(number)}",
        {"netns": path, "errno": errno_name(number)},
    )


def link_failed(operation: str, number: int | None, text: str = "") -> FailedPrecondition:
    """Return the error for a link, an address, a route or a rule that the kernel refused."""
    cause = text or os.strerror(number or 0)
    metadata = {"operation": operation, "errno": errno_name(number)}
    return FailedPrecondition("LINK_FAILED", f"{operation} failed: {cause}", metadata)
