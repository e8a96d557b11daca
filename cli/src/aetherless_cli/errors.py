# SPDX-License-Identifier: Apache-2.0
"""The errors that ``aetherctl`` itself raises, domain ``cli.aetherless``: one constructor each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common.errors import (
    Aborted,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aetherless_common.errors import AetherlessError
    from aetherless_common.settings import Settings

DOMAIN = "cli.aetherless"


def config_not_found(path: Path, cause: str = "does not exist") -> NotFound:
    """Return the error for a configuration file that can't be read."""
    return NotFound(
        "CONFIG_NOT_FOUND",
        f"the configuration file {path} {cause}",
        {"path": path},
        domain=DOMAIN,
        remedy="name the file with -c FILE; examples/hello.yaml is one to start from",
    )


def root_unreadable(path: str | Path, problem: str) -> FailedPrecondition:
    """Return the error for a function's folder that can't be read."""
    return FailedPrecondition(
        "ROOT_UNREADABLE",
        f"{path} can't be read: {problem}",
        {"path": path, "problem": problem},
        domain=DOMAIN,
        remedy="make it readable, or set root to another folder",
    )


def not_root(command: str) -> FailedPrecondition:
    """Return the error for a command that only root can carry out."""
    return FailedPrecondition(
        "NOT_ROOT",
        f"aetherctl {command} needs root",
        {"command": command},
        domain=DOMAIN,
        remedy=f"run 'sudo aetherctl {command}'",
    )


def host_not_ready(missing: Sequence[str]) -> FailedPrecondition:
    """Return the error for a host that lacks something; each thing was printed before."""
    return FailedPrecondition(
        "HOST_NOT_READY",
        f"this host lacks {len(missing)} thing{'s' if len(missing) > 1 else ''}: "
        + ", ".join(missing),
        {"missing": ",".join(missing)},
        domain=DOMAIN,
        remedy="follow the remedies of the lines above; aetherctl doctor checks again",
    )


def operation_in_progress(holder: str) -> Aborted:
    """Return the error for an ``up`` or ``down`` while another one is at work."""
    return Aborted(
        "OPERATION_IN_PROGRESS",
        f"another aetherctl up or down is at work ({holder})",
        {"resource": "orchestrator", "holder": holder},
        domain=DOMAIN,
        remedy="wait until it has ended, then try again",
    )


def service_start_failed(service: str, cause: str, log: str) -> Unavailable:
    """Return the error for a service that does not come up; ``log`` holds its last lines."""
    return Unavailable(
        "SERVICE_START_FAILED",
        f"the {service} service did not start: {cause}",
        {"service": service, "cause": cause, "log": log},
        domain=DOMAIN,
        remedy="see the log lines; aetherctl doctor says what the host lacks",
    )


def settings_changed(changed: Mapping[str, tuple[object, object]]) -> FailedPrecondition:
    """Return the error for an orchestrator section that a running orchestrator can't take over.

    Args:
        changed: by name, what it was started with and what is wanted.
    """
    told = [f"{name} {running}, not {wanted}" for name, (running, wanted) in changed.items()]
    return FailedPrecondition(
        "SETTINGS_CHANGED",
        f"the running orchestrator was started with {', '.join(told)}",
        {"settings": ",".join(changed)},
        domain=DOMAIN,
        remedy="run 'aetherctl down', then 'aetherctl up' again; or write what it was started with",
    )


def taken_down() -> Aborted:
    """Return the error for a command whose orchestrator was taken down meanwhile."""
    return Aborted(
        "TAKEN_DOWN",
        "the orchestrator was taken down while this command waited",
        domain=DOMAIN,
        remedy="run 'aetherctl up' again",
    )


def cleanup_failed(what: str, cause: str, log: str = "") -> Internal:
    """Return the error for something that ``down`` could not remove."""
    return Internal(
        "CLEANUP_FAILED",
        f"{what} could not be removed: {cause}",
        {"what": what, "cause": cause, "log": log},
        domain=DOMAIN,
        remedy="run 'aetherctl down' again; if it fails again, remove by hand what the log names",
    )


def passing_kept(own: Settings, error: AetherlessError) -> Internal:
    """Return the error for services for a moment of which something is left."""
    folders = f"AETHER_RUNTIME_DIR={own.runtime_dir} AETHER_STATE_DIR={own.state_dir}"
    return Internal(
        "CLEANUP_FAILED",
        f"{error.message}; {own.runtime_dir.parent} is kept",
        {**error.metadata, "folder": own.runtime_dir.parent},
        domain=DOMAIN,
        remedy=f"run '{folders} aetherctl down', then remove the folder",
    )


def interrupted(what: str) -> Aborted:
    """Return the error for a command that a signal ended."""
    return Aborted(
        "INTERRUPTED",
        f"{what} was interrupted",
        {"what": what},
        domain=DOMAIN,
        remedy="run it again",
    )


def invalid_id(function: str) -> InvalidArgument:
    """Return the error for text that is no function's id."""
    return InvalidArgument(
        "INVALID_ARGUMENT",
        f"{function!r} is no function id",
        {"field": "id", "problem": "must be 1 to 64 characters of A-Z a-z 0-9 _ and -"},
        domain=DOMAIN,
        remedy="aetherctl list shows the functions",
    )


def wake_not_found(function: str, port: int) -> NotFound:
    """Return the error for a function that was not woken since its instances were made."""
    call = f"call it at port {port}" if port else f"call it by 'aetherctl invoke {function}'"
    return NotFound(
        "WAKE_NOT_FOUND",
        f"{function} was not woken yet",
        {"function": function},
        domain=DOMAIN,
        remedy=f"{call}, or run 'aetherctl wake {function}', then try again",
    )
