# SPDX-License-Identifier: Apache-2.0
"""Read and write CRIU's image files by their generated protobuf modules.

An image starts with one or two 32-bit magic numbers (two since version 1.1 of the format, except
for the inventory) and goes on with entries, each a 32-bit length and that many bytes of protobuf,
all little-endian (criu/include/magic.h and criu/protobuf.c of CRIU's source). The modules are made
by set-up from CRIU's own ``.proto`` files and lie in the project's prefix.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from google.protobuf.message import Message

from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

#: The first word of an image whose second word is its own magic number (common, service).
_TWO_WORD_MAGICS = frozenset({0x54564319, 0x55105940})
_IPPROTO_TCP = 6
_TCP_CLOSE, _TCP_LISTEN = 7, 10
#: The third word of an IPv6 address that stands for an IPv4 one, as the kernel keeps it.
_MAPPED = struct.unpack("=I", b"\0\0\xff\xff")[0]
#: Bit of vma_entry.status.
_FILE_PRIVATE = 1 << 6
#: The listen backlog every restored listener gets at least, in connections.
MIN_BACKLOG = 4096

M = TypeVar("M", bound=Message)


def load_modules(prefix: Path) -> None:
    """Make the generated modules of ``prefix``/criu_images importable by their bare names.

    CRIU's ``.proto`` files import each other without a package, so the folder itself has to be on
    the import path.
    """
    folder = str(prefix / "criu_images")
    if folder not in sys.path:
        sys.path.append(folder)


def module(name: str) -> ModuleType:
    """Return the generated module of CRIU's ``<name>.proto``, for example ``rpc``."""
    return importlib.import_module(f"{name.replace('-', '_')}_pb2")


@dataclass
class Image:
    """One image file: its magic words and its entries, still encoded."""

    header: bytes
    entries: list[bytes]

    @classmethod
    def read(cls, path: Path) -> Image:
        """Read ``path``.

        Raises:
            ValueError: the file ends in the middle of an entry.
        """
        with path.open("rb") as file:
            header, entries = stream(file)
            return cls(header, list(entries))

    def write(self, path: Path) -> None:
        """Replace ``path`` by this image, keeping its mode and owner."""
        with path.open("r+b") as file:
            file.write(self.header)
            for entry in self.entries:
                file.write(struct.pack("<I", len(entry)) + entry)
            file.truncate()

    def decode(self, kind: type[M]) -> list[M]:
        """Return all entries as messages of ``kind``."""
        return [_parse(kind, entry) for entry in self.entries]

    def encode(self, messages: Sequence[Message]) -> None:
        """Take ``messages`` as the new entries."""
        self.entries = [message.SerializeToString() for message in messages]


@dataclass(frozen=True)
class Process:
    """One process of a dumped tree; ids are of the sandbox."""

    pid: int
    parent_pid: int
    command: str
    threads: int


def process_tree(folder: Path) -> list[Process]:
    """Return the processes of the dump in ``folder``, the root first."""
    entry_kind = module("pstree").pstree_entry
    entries = Image.read(folder / "pstree.img").decode(entry_kind)
    return [
        Process(entry.pid, entry.ppid, _command(folder, entry.pid), len(entry.threads))
        for entry in entries
    ]


def regular_files(folder: Path) -> dict[str, bool]:
    """Return the regular files that the dump refers to, by their paths in the sandbox.

    The value tells whether a process maps it privately, as programs are. The images themselves are
    none of them.
    """
    entry_kind = module("fdinfo").file_entry
    entries = Image.read(folder / "files.img").decode(entry_kind)
    mapped = _privately_mapped(folder)
    names = {
        os.fsdecode(entry.reg.name): entry.id in mapped
        for entry in entries
        if entry.HasField("reg")
    }
    inside = f"{SNAPSHOT_TARGET}/"
    return {name: names[name] for name in sorted(names) if not name.startswith(inside)}


def files_open_for_writing(folder: Path) -> set[str]:
    """Return the regular files that the dump's processes can write, by their paths inside."""
    entry_kind = module("fdinfo").file_entry
    entries = Image.read(folder / "files.img").decode(entry_kind)
    return {
        os.fsdecode(entry.reg.name)  # bytes when it is no UTF-8
        for entry in entries
        if entry.HasField("reg") and entry.reg.flags & os.O_ACCMODE != os.O_RDONLY
    }


def _privately_mapped(folder: Path) -> set[int]:
    """Return the ids of the files that processes map privately."""
    kind = module("mm").mm_entry
    return {
        vma.shmid
        for path in folder.glob("mm-*.img")
        for memory in Image.read(path).decode(kind)
        for vma in memory.vmas
        if vma.status & _FILE_PRIVATE
    }


def raise_backlogs(folder: Path, least: int = MIN_BACKLOG) -> int:
    """Give every TCP listener of the dump a backlog of at least ``least``.

    A server with a small backlog (five is common) would drop a burst of first clients. Returns the
    number of listeners that were changed.
    """
    path = folder / "files.img"
    image = Image.read(path)
    entries = image.decode(module("fdinfo").file_entry)
    changed = 0
    for entry in entries:
        if entry.HasField("isk") and entry.isk.state == _TCP_LISTEN and entry.isk.backlog < least:
            entry.isk.backlog = least
            changed += 1
    if changed:
        image.encode(entries)
        image.write(path)
    return changed


def close_outside(folder: Path) -> int:
    """Make every TCP connection of the dump whose other end is not in it a closed socket.

    The connections with the outside were ended before the dump, but an ended socket still names its
    peer, and a restore would connect it again; and a program may have connected again at once: the
    other end knows one client, not each restore of it. Connections between processes of the tree
    stay. Returns the number of connections that were closed.
    """
    path = folder / "files.img"
    image = Image.read(path)
    entries = image.decode(module("fdinfo").file_entry)
    connections = [entry.isk for entry in entries if entry.HasField("isk") and _connects(entry.isk)]
    ends = {_ends(connection) for connection in connections}
    outside = [
        each for each in connections if each.state == _TCP_CLOSE or _ends(each)[::-1] not in ends
    ]
    for each in outside:
        each.state, each.src_port, each.dst_port = _TCP_CLOSE, 0, 0
        each.ClearField("shutdown")
    if outside:
        image.encode(entries)
        image.write(path)
    return len(outside)


def _connects(socket: Any) -> bool:
    """Tell whether an inet socket's entry is of a TCP connection, or of one that was ended."""
    if socket.proto != _IPPROTO_TCP or socket.state == _TCP_LISTEN:
        return False
    return socket.state != _TCP_CLOSE or bool(socket.dst_port)


def _ends(socket: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return both ends of a connection, its own first; an IPv4 address has one form."""
    source, target = (
        tuple(words[3:] if list(words[:3]) == [0, 0, _MAPPED] else words)
        for words in (socket.src_addr, socket.dst_addr)
    )
    return (source, socket.src_port), (target, socket.dst_port)


def listeners(folder: Path) -> int:
    """Return the number of TCP listeners in the dump."""
    entries = Image.read(folder / "files.img").decode(module("fdinfo").file_entry)
    return sum(1 for entry in entries if entry.HasField("isk") and entry.isk.state == _TCP_LISTEN)


def adopt_user_namespace(folder: Path, root_pid: int) -> None:
    """Make the inventory's user namespace the root task's own.

    The dump was made by a CRIU in the host's user namespace, the restore is made by one in the
    sandbox's: with equal ids CRIU sees no user namespace to create.
    """
    ids_kind = module("core").task_kobj_ids_entry
    ids = Image.read(folder / f"ids-{root_pid}.img").decode(ids_kind)[0]
    path = folder / "inventory.img"
    image = Image.read(path)
    (inventory,) = image.decode(module("inventory").inventory_entry)
    inventory.root_ids.user_ns_id = ids.user_ns_id
    image.encode([inventory])
    image.write(path)


def stream(file: BinaryIO) -> tuple[bytes, Iterator[bytes]]:
    """Return the magic words and the encoded entries of an open image, read one by one.

    Raises:
        ValueError: the file has no header, or (from the iterator) ends in the middle of an entry.
    """
    name = file.name
    start = file.read(4)
    header = start + file.read(_header_length(start, name) - len(start))
    return header, _entries(file, name)


def _entries(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the entries that are left of an open image."""
    while prefix := file.read(4):
        if len(prefix) < struct.calcsize("<I"):
            raise ValueError(f"{name} ends in the middle of an entry")
        (length,) = struct.unpack("<I", prefix)
        entry = file.read(length)
        if len(entry) < length:
            raise ValueError(f"{name} ends in the middle of an entry")
        yield entry


def _command(folder: Path, pid: int) -> str:
    """Return the command name of task ``pid``, at most 15 bytes."""
    core = Image.read(folder / f"core-{pid}.img").decode(module("core").core_entry)[0]
    return str(core.tc.comm)


def _parse(kind: type[M], entry: bytes) -> M:
    """Decode one entry."""
    message = kind()
    message.ParseFromString(entry)
    return message


def _header_length(start: bytes, name: str) -> int:
    """Return how many bytes of magic numbers an image has that begins with ``start``."""
    if len(start) < struct.calcsize("<I"):
        raise ValueError(f"{name} has no header")
    (word,) = struct.unpack("<I", start)
    return 8 if word in _TWO_WORD_MAGICS else 4


def resident_bytes(folder: Path) -> int:
    """Return the bytes of memory pages that the dump holds."""
    return sum(page.stat().st_size for page in folder.glob("pages-*.img"))
