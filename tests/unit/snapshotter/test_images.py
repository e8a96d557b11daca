# SPDX-License-Identifier: Apache-2.0
"""What is changed in CRIU's images between a dump and the first restore."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_snapshotter import images

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("criu_modules")

TCP, UDP = 6, 17
ESTABLISHED, SYN_SENT, CLOSE, CLOSE_WAIT, LISTEN = 1, 2, 7, 8, 10
IPV4, IPV6 = 2, 10
HEADER = struct.pack("<II", 0x54564319, 0x56303138)
End = tuple[str, int]
NOBODY: End = ("0.0.0.0", 0)


def words(address: str) -> list[int]:
    """Return an address as the image has it: 32-bit words in network order."""
    packed = ip_address(address).packed
    return list(struct.unpack(f"={len(packed) // 4}I", packed))


def inet(number: int, state: int, source: End, target: End = NOBODY, proto: int = TCP) -> Any:
    """Return the entry of an inet socket."""
    entry = images.module("fdinfo").file_entry(id=number, type=images.module("fdinfo").INETSK)
    entry.isk.id = entry.isk.ino = number
    entry.isk.family = IPV6 if ":" in source[0] else IPV4
    entry.isk.type, entry.isk.proto, entry.isk.state = 1, proto, state
    entry.isk.src_addr.extend(words(source[0]))
    entry.isk.dst_addr.extend(words(target[0]))
    entry.isk.src_port, entry.isk.dst_port = source[1], target[1]
    entry.isk.flags, entry.isk.backlog = 2, 5
    entry.isk.fown.uid = entry.isk.fown.euid = entry.isk.fown.signum = 0
    entry.isk.fown.pid_type = entry.isk.fown.pid = 0
    entry.isk.opts.SetInParent()
    for field in entry.isk.opts.DESCRIPTOR.fields:
        if field.is_required:
            setattr(entry.isk.opts, field.name, 0)
    return entry


def dumped(folder: Path, *entries: Any) -> None:
    """Write a dump's files.img."""
    path = folder / "files.img"
    path.touch()
    image = images.Image(HEADER, [])
    image.encode(entries)
    image.write(path)


def sockets(folder: Path) -> list[tuple[int, int]]:
    """Return state and source port of each inet socket of a dump."""
    kind = images.module("fdinfo").file_entry
    entries = images.Image.read(folder / "files.img").decode(kind)
    return [(entry.isk.state, entry.isk.src_port) for entry in entries]


def test_connections_with_the_outside_are_closed(tmp_path: Path) -> None:
    """Also one that is being made, or that the other end has closed; others stay as they are."""
    dumped(
        tmp_path,
        inet(1, LISTEN, ("0.0.0.0", 80)),
        inet(2, ESTABLISHED, ("198.18.255.1", 4000), ("192.0.2.1", 5432)),
        inet(3, SYN_SENT, ("198.18.255.1", 4001), ("192.0.2.1", 5432)),
        inet(4, CLOSE_WAIT, ("127.0.0.1", 4002), ("127.0.0.1", 6379)),
        inet(5, CLOSE, ("0.0.0.0", 0)),
        inet(7, CLOSE, ("198.18.255.1", 4003), ("192.0.2.1", 5432)),
        inet(6, ESTABLISHED, ("198.18.255.1", 5000), ("192.0.2.1", 53), UDP),
    )
    assert images.close_outside(tmp_path) == 4
    assert sockets(tmp_path) == [
        (LISTEN, 80),
        *[(CLOSE, 0)] * 5,
        (ESTABLISHED, 5000),
    ]
    assert images.close_outside(tmp_path) == 0


def test_connections_inside_the_tree_stay(tmp_path: Path) -> None:
    """Both ends are in the dump; one of them may call IPv4 by its IPv6 form."""
    client, server = ("127.0.0.1", 4000), ("127.0.0.1", 6379)
    mapped = [(f"::ffff:{address}", port) for address, port in (server, client)]
    both = (("::1", 4000), ("::1", 6379))
    dumped(
        tmp_path,
        inet(1, ESTABLISHED, client, server),
        inet(2, ESTABLISHED, mapped[0], mapped[1]),
        inet(3, ESTABLISHED, *both),
        inet(4, ESTABLISHED, both[1], both[0]),
    )
    before = (tmp_path / "files.img").read_bytes()
    assert images.close_outside(tmp_path) == 0
    assert (tmp_path / "files.img").read_bytes() == before
