# SPDX-License-Identifier: Apache-2.0
"""Writes errors.md from the ErrorReason enums and the remedies: ``python docs/errors.py``."""

from __future__ import annotations

import re
from pathlib import Path

from aetherless_cli.entry import INTERRUPTED
from aetherless_cli.reasons import BY_DOMAIN
from aetherless_common.errors import CLASSES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
ENTRY = re.compile(r"// ([A-Z_]+): (.+)\n  ERROR_REASON_([A-Z_]+) = \d+;")
INTRODUCTION = """\
# Errors

Every call does what was asked or fails with one of these. On the wire an error is
google.rpc.Status with one google.rpc.ErrorInfo: `reason` as below, `domain`
`<service>.aetherless`, and each changing part of the message in `metadata`. `aetherctl` prints
reason, message and remedy; with `-o json` the whole error as JSON on standard error.

This page is made by `python docs/errors.py` from `protos/` and the table of remedies in `cli/`.

## Exit statuses of `aetherctl`

| status | class |
| --- | --- |
| 0 | done |
| 1 | INTERNAL |
| 2 | wrong use of the command line |
"""
FOLLOWING = """\
For what goes on until Ctrl-C (`logs -f`, `events -f`, `stats -w`, `pipeline top`, `up -f`) it is
the usual end, with status 0 once it goes on. `up` and `check` end with ABORTED when interrupted.
In the first milliseconds Python alone starts, and may end by the signal, or with a traceback."""
OWN = {
    "INTERNAL": "A fault of this software.",
    "INVALID_ARGUMENT": "An argument can't be right.",
    "CONFIG_INVALID": "The configuration file has problems; each is named with line and column.",
    "CONFIG_NOT_FOUND": "There is no such configuration file.",
    "ROOT_UNREADABLE": "A function's folder can't be read.",
    "NOT_ROOT": "The command needs root.",
    "HOST_NOT_READY": "The host lacks something; each thing is named with its remedy.",
    "NOT_SET_UP": "What make setup builds is not there.",
    "FOLDER_IN_USE": "The runtime or state folder holds files that are not an orchestrator's.",
    "MACHINE_ID_MISSING": "The host has no machine id.",
    "KERNEL_FEATURE_MISSING": "The kernel lacks something.",
    "SERVICE_RUNNING": "The service runs already.",
    "OPERATION_IN_PROGRESS": "Another up or down is at work.",
    "SERVICE_START_FAILED": "A service does not come up.",
    "SETTINGS_CHANGED": "The orchestrator section is not that of the running orchestrator.",
    "TAKEN_DOWN": "The orchestrator was taken down while the command waited.",
    "WAKE_NOT_FOUND": "The function was not woken since the instances that serve it were made.",
    "CLEANUP_FAILED": "Something could not be removed.",
    "INTERRUPTED": "A signal ended the command.",
    "PEER_UNREACHABLE": "A service does not answer; any service may say so of another.",
    "PEER_TIMEOUT": "A service did not answer in time; any service may say so of another.",
}


def declared(service: str) -> dict[str, tuple[str, str]]:
    """Return code and meaning of each reason in a service's contract."""
    text = (ROOT / "protos" / "aetherless" / service / "v1" / "error_reason.proto").read_text()
    return {reason: (code, meaning) for code, meaning, reason in ENTRY.findall(text)}


def meanings(service: str) -> dict[str, str]:
    """Return the meaning of each reason of a service, or of the command line."""
    if service == "cli":
        return OWN
    return {reason: meaning for reason, (_, meaning) in declared(service).items()}


def page() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION.rstrip("\n")]
    classes = sorted(CLASSES.values(), key=lambda cls: cls.exit_status)
    lines += [f"| {cls.exit_status} | {cls.code} |" for cls in classes if cls.exit_status > 1]
    lines += [f"| {INTERRUPTED} | Ctrl-C (SIGINT), in what has no status of its own for that |"]
    lines += ["", FOLLOWING]
    for service, table in BY_DOMAIN.items():
        known = meanings(service)
        lines += ["", f"## {service}.aetherless", ""]
        lines += ["| reason | class | meaning | remedy |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{reason}` | {code} | {known[reason][0].upper()}{known[reason][1:]} | {remedy} |"
            for reason, (code, remedy) in table.items()
            if reason in known
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
