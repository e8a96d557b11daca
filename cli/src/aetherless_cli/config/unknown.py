# SPDX-License-Identifier: Apache-2.0
"""What to say about a key that the schema does not have."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Keys that people know from elsewhere or from earlier drafts, and what took their place. "*" is
# the index of a list.
REPLACED = {
    "orchestrator.ebpf": (
        "routing needs no key: programs are attached by themselves, and functions[].trigger_port "
        "says which port is routed"
    ),
    "orchestrator.timeout_ms": "use functions[].timeout_ms, or orchestrator.restore_timeout_ms",
    "orchestrator.socket_dir": "set the environment variable AETHER_RUNTIME_DIR",
    "orchestrator.runtime_dir": "set the environment variable AETHER_RUNTIME_DIR",
    "orchestrator.state_dir": "set the environment variable AETHER_STATE_DIR",
    "orchestrator.criu_path": "set the environment variable AETHER_PREFIX to a folder with criu",
    "functions.*.name": "use functions[].id",
    "functions.*.port": "use functions[].trigger_port",
    "functions.*.handler": "use functions[].handler_path",
    "functions.*.memory_mb": "use functions[].memory_limit_mb",
    "functions.*.memory": "use functions[].memory_limit_mb",
    "functions.*.timeout": "use functions[].timeout_ms",
    "functions.*.idle_timeout_ms": "use functions[].idle_after_ms",
    "functions.*.env": "use functions[].environment",
    "pipelines.*.name": "use pipelines[].id",
    "pipelines.*.timeout": "use pipelines[].timeout_ms",
    "pipelines.*.stages.*.inputs": "use pipelines[].stages[].from",
}
# Keys whose meaning is fixed but that this version does not serve.
LATER = {
    "functions.*.volumes",
    "functions.*.host_ports",
    "functions.*.scaling",
    "functions.*.snapshot",
    "functions.*.triggers",
    "orchestrator.ipc",
    "orchestrator.scaling",
    "orchestrator.network",
    "ipc",
    "volumes",
}


def explain(location: Iterable[int | str], known: Iterable[str]) -> tuple[str, str]:
    """Return problem and remedy for an unknown key at a location, given its siblings' names."""
    steps = list(location)
    general = ".".join("*" if isinstance(step, int) else step for step in steps)
    key = str(steps[-1])
    if general in REPLACED:
        return "there is no such key", REPLACED[general]
    if general in LATER:
        return "not in this version", f"remove {key}; this version can't do what it asks"
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if near:
        return "there is no such key", f"did you mean {near[0]}?"
    return "there is no such key", f"known here: {', '.join(names)}"
