# SPDX-License-Identifier: Apache-2.0
"""Compares the host before and after: what an orchestrator leaves behind, or breaks.

``python -m tests.framework.hoststate snapshot FILE`` notes the host,
``python -m tests.framework.hoststate compare FILE`` says what changed since (exit status 1).

By default every change counts, but for the tolerances named below. ``--shared`` (or
AETHER_TEST_SHARED_HOST=1) is for a host on which others test at the same time: a change counts
when it bears a mark of ours, or when it is in a section that orchestrators never share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .hostfacts import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Facts = dict[str, list[str]]

SHARED_HOST = "AETHER_TEST_SHARED_HOST"
SETTLE_S = 15.0
POLL_S = 0.1


@dataclass(frozen=True)
class Tolerance:
    """A change that other programs make on an idle host, and why it does not count.

    Arguments:
        section: The section it is in.
        pattern: What a line must hold to be tolerated.
        reason: Who makes the change.
    """

    section: str
    pattern: re.Pattern[str]
    reason: str

    def covers(self, section: str, line: str) -> bool:
        """Say whether it explains this line."""
        return section == self.section and self.pattern.search(line) is not None


def tolerate(section: str, pattern: str, reason: str) -> Tolerance:
    """Return the tolerance of one pattern."""
    return Tolerance(section, re.compile(pattern), reason)


TOLERANCES = (
    tolerate("sysctls", r"^kernel/random/", "the kernel's own entropy clock"),
    tolerate("sysctls", r"^kernel/(max_lock_depth|sched_|numa_)", "the kernel tunes these"),
    tolerate("sysctls", r"^vm/(stat_refresh|compact_memory|drop_caches)", "triggers, not settings"),
    tolerate("sysctls", r"^fs/(binfmt_misc|nfs|lockd)/", "made when a file system is mounted"),
    tolerate("sysctls", r"^net/(core/flow_limit|rds|sunrpc)", "made when a module is loaded"),
    tolerate("shared-memory", r"/dev/shm/(sem\.|pym-|mp-)", "Python programs of other users"),
    tolerate("shared-memory", r"^/dev/shm/aetherless$", "the folder all orchestrators share"),
    tolerate("cgroups", r"/(system|user|init)\.(slice|scope)", "systemd's sessions and timers"),
    tolerate("mounts", r"^/(run/user|proc/sys/fs/binfmt_misc)", "systemd's sessions"),
    tolerate("sockets", r"^(LISTEN|UNCONN) \S+:\d+ .*(sshd|dhclient|chronyd|systemd)", "daemons"),
    tolerate("sockets", r"users:\(\(\"(ssh-agent|gpg-agent|dbus)", "sessions of other users"),
)

# On a shared host only lines with a mark of ours count here: nothing in them says whose they are.
UNATTRIBUTED = frozenset(
    {"processes", "bpf-programs", "bpf-maps", "bpf-links", "cgroups", "mounts", "shared-memory"}
    | {"sockets", "runtime-files", "neighbours", "qdiscs"}
)
# What another orchestrator or a test's network namespace puts into the remaining sections.
OF_OTHERS = re.compile(
    r"\bae[0-9a-f]{7,}|aether_[0-9a-f]{6}|\b198\.1[89]\.|\bfd[0-9a-f]{2}:|fe80::|\bveth|\btest|ff00::"
    r"|^net/ipv4/(ip_forward|ip_local_reserved_ports|conf/.*/forwarding)|^net/.*/(conf|neigh)/"
    r"|^fs/|^user/|^kernel/"
)


@dataclass(frozen=True)
class Change:
    """One line that one of two readings has and the other has not."""

    section: str
    line: str
    appeared: bool

    def __str__(self) -> str:
        """Show it as a line of a diff."""
        return f"{'+' if self.appeared else '-'} {self.line}"


def read_host(sections: Iterable[str] = SECTIONS) -> Facts:
    """Return what the host has now."""
    return {name: SECTIONS[name]() for name in sections}


def changes(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[Change]:
    """Return the differences of two readings, in the order of the sections."""
    found = []
    for section in before:
        old, new = Counter(before[section]), Counter(after.get(section, []))
        found += [Change(section, line, appeared=False) for line in (old - new).elements()]
        found += [Change(section, line, appeared=True) for line in (new - old).elements()]
    return found


def is_shared() -> bool:
    """Say whether the environment declares that others test on this host."""
    return os.environ.get(SHARED_HOST, "") not in ("", "0")


def counts(change: Change, marks: Sequence[str], *, shared: bool) -> bool:
    """Say whether a change is one that an orchestrator must answer for.

    Arguments:
        change: The change.
        marks: Texts that only our own orchestrators' objects bear: ids, folders.
        shared: Whether others test on this host at the same time.
    """
    if any(mark in change.line for mark in marks):
        return True
    if any(tolerance.covers(change.section, change.line) for tolerance in TOLERANCES):
        return False
    if not shared:
        return True
    return change.section not in UNATTRIBUTED and OF_OTHERS.search(change.line) is None


def report(found: Sequence[Change]) -> str:
    """Return a diff for a reader, grouped by section."""
    lines = []
    for section in dict.fromkeys(change.section for change in found):
        lines.append(f"{section}:")
        lines += [f"  {change}" for change in found if change.section == section]
    return "\n".join(lines)


class HostState:
    """What the host had when this was made.

    Arguments:
        marks: Texts that only our own orchestrators' objects bear.
        shared: Whether others test on this host; by default what the environment says.
    """

    def __init__(self, marks: Sequence[str] = (), *, shared: bool | None = None) -> None:
        self.marks = list(marks)
        self.shared = is_shared() if shared is None else shared
        self.before = read_host()

    def differences(self, living: Sequence[str] = ()) -> list[Change]:
        """Return what changed since, tolerances taken off.

        Arguments:
            living: Marks of orchestrators that are up and may change their own objects.
        """
        found = changes(self.before, read_host())
        return [
            change
            for change in found
            if counts(change, self.marks, shared=self.shared)
            and not any(mark in change.line for mark in living)
        ]

    def settled_differences(
        self, living: Sequence[str] = (), settle_s: float = SETTLE_S
    ) -> list[Change]:
        """Return what is still changed once the kernel's deferred work is done.

        A namespace, a control group and a BPF program go some time after their last user.
        """
        deadline = time.monotonic() + settle_s
        while (found := self.differences(living)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    def verify(self, living: Sequence[str] = ()) -> None:
        """Raise AssertionError with a diff when the host is not as it was."""
        found = self.settled_differences(living)
        if found:
            raise AssertionError(f"the host is not as it was:\n{report(found)}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="hoststate", description="Compare a host with itself.")
    parser.add_argument("action", choices=("snapshot", "compare", "show"))
    parser.add_argument("file", nargs="?", type=Path, help="where the snapshot is kept")
    parser.add_argument("--shared", action="store_true", help="others test on this host")
    parser.add_argument("--mark", action="append", default=[], help="an id or folder of ours")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds to wait")
    chosen = parser.parse_args(arguments)
    if chosen.action != "show" and chosen.file is None:
        parser.error(f"{chosen.action} needs a file")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; return its exit status."""
    chosen = parse(arguments)
    if chosen.action == "compare":
        state = HostState(chosen.mark, shared=chosen.shared or is_shared())
        state.before = json.loads(chosen.file.read_text())
        found = state.settled_differences(settle_s=chosen.settle)
        print(report(found) or "the host is as it was")
        return 1 if found else 0
    facts = read_host()
    if chosen.action == "show":
        print("\n".join(f"{name}: {line}" for name in facts for line in facts[name]))
        return 0
    chosen.file.write_text(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
