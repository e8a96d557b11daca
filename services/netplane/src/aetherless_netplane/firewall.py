# SPDX-License-Identifier: Apache-2.0
"""The orchestrator's nftables table: way out, resolver, and what sandboxes may not reach."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aetherless_netplane import errors
from aetherless_netplane.addresses import BENCHMARK_IPV4, RESOLVER_IPV4

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from aetherless_netplane.addresses import OuterRange

# Empty chains that say something of the table; nft's JSON output has no comments.
FORWARDING_MARK = "forwarding_was_off"
DIGEST_MARK = "digest_"
METADATA_SERVICE = "169.254.169.254"
TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Table:
    """What the table shall say.

    Args:
        name: its name, family inet.
        links: what the names of the sandboxes' host links begin with.
        outer: the orchestrator's range.
        upstream: the resolver behind the sandboxes' resolver address, if there is one.
        forwarding_was_off: we turned forwarding on, so nobody else's packets may use it.
    """

    name: str
    links: str
    outer: OuterRange
    upstream: IPv4Address | None
    forwarding_was_off: bool

    def marks(self) -> set[str]:
        """Return the names of the empty chains that say what the table is."""
        digest = DIGEST_MARK + hashlib.sha256(self._chains().encode()).hexdigest()[:12]
        return {digest, FORWARDING_MARK} if self.forwarding_was_off else {digest}

    def script(self) -> str:
        """Return the script that puts the table in place of an earlier one, in one step."""
        marks = "".join(f"\tchain {mark} {{}}\n" for mark in sorted(self.marks()))
        return (
            f"table inet {self.name} {{}}\n"
            f"delete table inet {self.name}\n"
            f"table inet {self.name} {{\n{marks}{self._chains()}}}\n"
        )

    def _chains(self) -> str:
        return self._resolver() + self._way_out() + self._input() + self._forward()

    def _resolver(self) -> str:
        if self.upstream is None:
            return ""
        rules = [
            f'iifname "{self.links}*" ip daddr {RESOLVER_IPV4} {protocol} dport 53 '
            f"dnat ip to {self.upstream}:53"
            for protocol in ("udp", "tcp")
        ]
        return _chain("resolver", "nat", "prerouting", "dstnat", rules)

    def _way_out(self) -> str:
        rule = f'ip saddr {self.outer.ipv4} oifname != "{self.links}*" masquerade'
        return _chain("way_out", "nat", "postrouting", "srcnat", [rule])

    def _input(self) -> str:
        """From a sandbox to the host itself: answers, and questions to a resolver on the host."""
        rules = [
            f'iifname != "{self.links}*" accept',
            "ct state established,related accept",
            "ct status dnat accept",
            "drop",
        ]
        return _chain("input", "filter", "input", "filter", rules)

    def _forward(self) -> str:
        rules = [
            "ct status dnat accept",
            f'iifname "{self.links}*" ip daddr {{ {METADATA_SERVICE}, {BENCHMARK_IPV4} }} drop',
            f'oifname "{self.links}*" ct state established,related accept',
            f'oifname "{self.links}*" drop',
        ]
        if self.forwarding_was_off:
            rules.append(f"ip saddr != {BENCHMARK_IPV4} ip daddr != {BENCHMARK_IPV4} drop")
        return _chain("forward", "filter", "forward", "filter", rules)


def _chain(name: str, kind: str, hook: str, priority: str, rules: list[str]) -> str:
    body = "".join(f"\t\t{rule}\n" for rule in rules)
    return (
        f"\tchain {name} {{\n"
        f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n{body}\t}}\n"
    )


def apply(table: Table) -> bool:
    """Load the table, unless it is there as it should be; tell whether it was loaded.

    Raises:
        FailedPrecondition: LINK_FAILED with nft's words, or KERNEL_FEATURE_MISSING without nft.
    """
    if table.marks() <= _chains_by_table().get(table.name, set()):
        return False
    _nft("-f", "-", script=table.script())
    return True


def remove(name: str) -> None:
    """Remove a table, if it is there."""
    if name in _chains_by_table():
        _nft("delete", "table", "inet", name)


def others_enabled_forwarding(own: str) -> bool:
    """Tell whether another orchestrator of this host turned forwarding on."""
    pattern = re.compile(r"aether_[0-9a-f]{6}")
    return any(
        FORWARDING_MARK in chains
        for name, chains in _chains_by_table().items()
        if name != own and pattern.fullmatch(name)
    )


def blocking_chains(own: str) -> list[str]:
    """Return the forward chains of others that drop by default, as ``family table chain``.

    A sandbox's way out passes each of them; only their own rules can let it pass.
    """
    chains = [item["chain"] for item in listed("chains") if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["table"] != own
    ]


def listed(what: str) -> list[dict[str, Any]]:
    """Return what ``nft -j list`` says."""
    return list(json.loads(_nft("-j", "list", what))["nftables"])


def _chains_by_table() -> dict[str, set[str]]:
    """Return the names of the chains of each inet table, by the table's name."""
    found: dict[str, set[str]] = {}
    for chain in (item["chain"] for item in listed("chains") if "chain" in item):
        if chain["family"] == "inet":
            found.setdefault(chain["table"], set()).add(chain["name"])
    return found


def _nft(*arguments: str, script: str = "") -> str:
    """Run nft and return what it printed."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if nft is None:
        raise errors.kernel_feature_missing(
            "nft", "nft is not installed", "apt-get install nftables"
        )
    done = subprocess.run(
        [nft, *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise errors.link_failed(f"nft {' '.join(arguments)}", None, done.stderr.strip()[:500])
    return done.stdout
