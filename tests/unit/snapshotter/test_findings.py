# SPDX-License-Identifier: Apache-2.0
"""What recorded facts mean: each rule by itself, without a process."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import findings
from aetherless_snapshotter.finding_kinds import INFO, REFUSED, WARNING, of_declared_mounts
from aetherless_snapshotter.holdings import Descriptor, Holdings, Mapping, Mount, Process
from aetherless_snapshotter.netns import TcpSocket
from aetherless_snapshotter.sandbox_spec import HANDLER_SOCKET
from aetherless_snapshotter.unixdiag import UnixSocket

if TYPE_CHECKING:
    from aetherless.snapshotter.v1 import snapshot_pb2

PLACE = findings.Place(8080, frozenset({"/tmp", "/srv/app"}), ("/data",))
OVERLAY = Mount("0:50", "/srv/app", "overlay")
USR = Mount("8:1", "/usr", "ext4")
DATA = Mount("8:1", "/data", "ext4")
DEV = Mount("0:5", "/dev/null", "devtmpfs")
FILE = stat.S_IFREG | 0o644
ESTABLISHED, LISTEN = 1, 10
PID = 4711


def descriptor(link: str, *, mode: int = FILE, mount: Mount | None = OVERLAY) -> Descriptor:
    """Return an open descriptor."""
    return Descriptor(3, link, mode, 0, 1, 77, 10, 4096, "", mount, ())


def process(*descriptors: Descriptor) -> Process:
    """Return a process that holds them, and nothing else."""
    return Process(
        PID, 10000, "server", "/usr/bin/server", 0, 0, (OVERLAY, USR, DATA, DEV), descriptors, ()
    )


def judge(*members: Process, **more: object) -> list[snapshot_pb2.Finding]:
    """Return what the processes' holdings mean."""
    facts = {"tcp": (), "unix": (), "gone": frozenset(), **more}
    return findings.judge(Holdings(members, **facts), (), PLACE)  # type: ignore[arg-type]


def inode(kind: str, *info: str) -> Descriptor:
    """Return a descriptor of what is no file."""
    return replace(descriptor(f"anon_inode:{kind}", mount=None), info=info)


def socket(protocol: str, number: int = 77) -> Descriptor:
    """Return a socket's descriptor."""
    mode = stat.S_IFSOCK | 0o777
    link = f"socket:[{number}]"
    return replace(
        descriptor(link, mode=mode, mount=None), protocol=protocol, inode=number, info=()
    )


def device(link: str, major: int, minor: int, mount: Mount | None = DEV) -> Descriptor:
    """Return an open device file."""
    found = descriptor(link, mode=stat.S_IFCHR | 0o666, mount=mount)
    return replace(found, device=os.makedev(major, minor))


NOTHING = [
    descriptor("pipe:[12]", mode=stat.S_IFIFO, mount=None),
    descriptor("/srv/app/data.db"),
    descriptor("/srv/app", mode=stat.S_IFDIR | 0o755),
    descriptor("/memfd:buffer (deleted)", mount=None),
    descriptor("/log/out", mount=Mount("8:1", "/log/out", "ext4")),
    device("/dev/null", 1, 3),
    device("/dev/urandom", 1, 9),
    socket("TCP"),
    socket("UNIX-STREAM"),
    inode("[eventpoll]"),
    inode("[eventfd]"),
    inode("inotify", "inotify wd:1 ino:2 sdev:800001 mask:2 ignored_mask:0"),
    inode("[pidfd]", f"Pid:\t{PID}", f"NSpid:\t{PID}\t10000"),
    inode("[pidfd]", "Pid:\t-1"),
]


@pytest.mark.parametrize("held", NOTHING, ids=lambda each: each.link)
def test_what_is_restored_as_it_is(held: Descriptor) -> None:
    """Nothing is said of what any server holds."""
    assert judge(process(held)) == []


HELD = [
    (inode("[io_uring]"), "io-uring", REFUSED),
    (inode("[userfaultfd]"), "userfaultfd", REFUSED),
    (inode("[perf_event]"), "perf-event", REFUSED),
    (inode("[landlock-ruleset]"), "landlock", REFUSED),
    (inode("bpf-map"), "bpf", REFUSED),
    (inode("kvm-vm"), "device", REFUSED),
    (inode("[something-new]"), "descriptor", REFUSED),
    (inode("inotify", "inotify wd:1 ino:2 sdev:32 mask:2 ignored_mask:0"), "file-watch", REFUSED),
    (inode("[pidfd]", "Pid:\t1"), "pidfd", REFUSED),
    (replace(inode(""), link="pidfd:[3]", info=("Pid:\t1",)), "pidfd", REFUSED),
    (socket("MPTCP"), "mptcp", REFUSED),
    (socket("MPTCPv6"), "mptcp", REFUSED),
    (socket("AF_VSOCK"), "socket", REFUSED),
    (device("/dev/pts/3", 136, 3, None), "terminal", REFUSED),
    (device("/dev/ptmx", 5, 2, None), "terminal", REFUSED),
    (device("/dev/tty", 5, 0), "terminal", REFUSED),
    (device("/dev/kvm", 10, 232), "device", REFUSED),
    (device("/dev/null", 1, 3, None), "foreign-file", REFUSED),
    (descriptor("/queue", mount=None), "foreign-file", REFUSED),
    (descriptor("/secretmem (deleted)", mount=None), "secret-memory", REFUSED),
    (
        replace(descriptor("/memfd:x (deleted)", mount=None), block_size=2 << 20),
        "huge-pages",
        REFUSED,
    ),
    (descriptor("/srv/app/replaced (deleted)"), "deleted-file", REFUSED),
    (replace(descriptor("/tmp/x (deleted)"), links=0, size=1 << 30), "deleted-file", REFUSED),
    (replace(descriptor("/tmp/x (deleted)"), links=0), "deleted-file", INFO),
    (descriptor("/data/model.bin", mount=DATA), "outside-file", WARNING),
    (descriptor("/usr/share/zoneinfo/UTC", mount=USR), "outside-file", INFO),
]


@pytest.mark.parametrize(("held", "subject", "severity"), HELD, ids=lambda each: str(each)[:40])
def test_what_a_descriptor_means(
    held: Descriptor, subject: str, severity: snapshot_pb2.FindingSeverity.ValueType
) -> None:
    """Each has its kind, whose it is, and what to change unless it is fine."""
    (found,) = judge(process(held))
    assert (found.subject, found.severity) == (subject, severity)
    assert (found.pid, found.command) == (10000, "server")
    assert found.message
    assert bool(found.remedy) == (severity != INFO)


MAPPED = [
    (Mapping("anon_inode:[io_uring]", shared=True, links=1), "io-uring", REFUSED),
    (Mapping("/anon_hugepage (deleted)", shared=False, links=0), "huge-pages", REFUSED),
    (Mapping("/secretmem (deleted)", shared=True, links=0), "secret-memory", REFUSED),
    (Mapping("/SYSV000004d2 (deleted)", shared=True, links=0), "system-v", REFUSED),
    (Mapping("/srv/app/lib.so (deleted)", shared=False, links=1), "deleted-file", REFUSED),
    (Mapping("/srv/app/lib.so (deleted)", shared=False, links=0), "deleted-file", INFO),
    (Mapping("/data/model.bin", shared=True, links=1), "outside-file", WARNING),
]


@pytest.mark.parametrize(("mapping", "subject", "severity"), MAPPED, ids=str)
def test_what_a_mapping_means(
    mapping: Mapping, subject: str, severity: snapshot_pb2.FindingSeverity.ValueType
) -> None:
    """Mapped files are judged as open ones."""
    (found,) = judge(replace(process(), mappings=(mapping,)))
    assert (found.subject, found.severity) == (subject, severity)


@pytest.mark.parametrize("link", ["/memfd:x (deleted)", "/dev/zero (deleted)", "/[aio] (deleted)"])
def test_memory_that_looks_like_a_deleted_file(link: str) -> None:
    """Shared memory and the like come back."""
    assert judge(replace(process(), mappings=(Mapping(link, shared=True, links=0),))) == []


def test_a_traced_process_and_locked_memory() -> None:
    """The one is refused, the other only told."""
    found = judge(replace(process(), tracer=12, locked_kb=64))
    assert [(each.subject, each.severity) for each in found] == [
        ("tracer", REFUSED),
        ("locked-memory", INFO),
    ]


GENERATORS = [
    ("/usr/bin/python3.11", "", "Python's random"),
    ("/usr/bin/server", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "OpenSSL"),
    ("/usr/bin/node", "", "Node's Math.random"),
    ("/usr/bin/java", "/usr/lib/jvm/lib/server/libjvm.so", "Java's Math.random"),
    ("/usr/bin/perl", "", "rand"),
]


@pytest.mark.parametrize(("program", "library", "words"), GENERATORS)
def test_random_generators(program: str, library: str, words: str) -> None:
    """Those in user space are shared by all clones."""
    mapping = Mapping(library, shared=False, links=1)
    (found,) = judge(replace(process(), program=program, mappings=(mapping,)))
    assert (found.subject, found.severity) == ("random-generator", WARNING)
    assert words in found.message


def tcp(state: int, local: str, remote: str = "0.0.0.0:0", queued: int = 0) -> TcpSocket:
    """Return a TCP socket."""
    (mine, my_port), (its, its_port) = local.rsplit(":", 1), remote.rsplit(":", 1)
    return TcpSocket(
        state,
        ip_address(mine.strip("[]")),
        int(my_port),
        ip_address(its.strip("[]")),
        int(its_port),
        only_ipv6=False,
        queued=queued,
    )


def test_listeners_on_other_ports() -> None:
    """They are told; the trigger port's is not, nor are connections."""
    sockets = (
        tcp(LISTEN, "0.0.0.0:8080"),
        tcp(LISTEN, "[::]:9090"),
        tcp(ESTABLISHED, "127.0.0.1:9090", "127.0.0.1:50000"),
    )
    (found,) = judge(process(), tcp=sockets)
    assert (found.subject, found.severity) == ("listener", INFO)
    assert "[::]:9090" in found.message


def test_connections_that_nobody_accepted() -> None:
    """They can't be checkpointed, but may be accepted in a moment."""
    (found,) = judge(process(), tcp=(tcp(LISTEN, "127.0.0.1:8080", queued=2),))
    assert (found.subject, found.severity) == ("pending-connection", REFUSED)
    assert found.subject in findings.PASSING


def test_connections_that_were_closed() -> None:
    """One warning for each peer."""
    ended = [tcp(ESTABLISHED, f"198.18.255.1:{port}", "10.0.0.5:5432") for port in (1, 2)]
    (found,) = findings.judge(Holdings((), (), (), frozenset()), ended, PLACE)
    assert (found.subject, found.severity) == ("outbound-connection", WARNING)
    assert "2 connections to 10.0.0.5:5432" in found.message


LEADS = [
    (tcp(ESTABLISHED, "198.18.255.1:40000", "10.0.0.5:5432"), True),
    (tcp(ESTABLISHED, "[::ffff:198.18.255.1]:40000", "[::ffff:10.0.0.5]:5432"), True),
    (tcp(ESTABLISHED, "127.0.0.1:40000", "127.0.0.1:5432"), False),
    (tcp(ESTABLISHED, "[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:5432"), False),
    (tcp(ESTABLISHED, "198.18.255.1:40000", "198.18.255.1:5432"), False),
    (tcp(LISTEN, "0.0.0.0:8080"), False),
    (tcp(7, "198.18.255.1:40000", "10.0.0.5:5432"), False),
]


@pytest.mark.parametrize(("socket_", "outside"), LEADS, ids=lambda each: str(each)[:50])
def test_where_a_connection_leads(socket_: TcpSocket, outside: bool) -> None:  # noqa: FBT001
    """Loopback and the sandbox's own address are inside."""
    assert socket_.leads_outside == outside


def unix(number: int, name: str = "", peer: int = 0, pending: tuple[int, ...] = ()) -> UnixSocket:
    """Return a Unix socket; with ``pending`` a listener."""
    return UnixSocket(number, name, peer, bool(pending), pending)


def of_unix(*sockets: UnixSocket, held: tuple[int, ...], gone: str = "") -> list[str]:
    """Return the kinds of what is found for sockets of which a process holds some."""
    member = process(*(socket("UNIX-STREAM", number) for number in held))
    return [each.subject for each in judge(member, unix=sockets, gone=frozenset({gone} - {""}))]


def test_unix_sockets_inside_are_fine() -> None:
    """A pair, a client that waits to be accepted, and an accepted one of a name that went."""
    assert of_unix(unix(1, peer=2), unix(2, peer=1), held=(1, 2)) == []
    assert of_unix(unix(1, "/tmp/s", pending=(2,)), unix(2), held=(1, 2)) == []
    assert of_unix(unix(1, "/tmp/s", peer=2), unix(2, peer=1), held=(1, 2), gone="/tmp/s") == []


def test_unix_sockets_that_lead_outside() -> None:
    """A peer that no process of the tree holds; ours alone is closed in time."""
    outside = (unix(1, peer=5), unix(5, "/data/db.sock", peer=1))
    assert of_unix(*outside, held=(1,)) == ["unix-connection"]
    ours = (unix(1, peer=5), unix(5, HANDLER_SOCKET, peer=1))
    assert of_unix(*ours, held=(1,)) == []


def test_unix_sockets_that_cannot_be_dumped() -> None:
    """A client that left before it was accepted, and a name whose file was removed."""
    assert of_unix(unix(1, "/tmp/s", pending=(0,)), held=(1,)) == ["pending-connection"]
    assert of_unix(unix(1, "/tmp/s"), held=(1,), gone="/tmp/s") == ["unix-socket"]


def test_the_refusals_come_first_and_each_thing_once() -> None:
    """Two workers that hold the same make one finding."""
    held = (inode("[io_uring]"), replace(descriptor("/tmp/x (deleted)"), links=0))
    found = judge(process(*held), replace(process(*held), pid=PID + 1))
    assert [each.subject for each in found] == ["io-uring", "deleted-file"]


def test_the_error_names_all_that_stands_against_a_checkpoint() -> None:
    """With whose it is, and each remedy once."""
    refused = findings.refusals(judge(process(inode("[io_uring]"), socket("MPTCP"))))
    error = findings.refusal("hello", refused)
    assert error.reason == "NOT_CHECKPOINTABLE"
    assert error.metadata["cause"] == "server holds an io_uring; server holds an MPTCP socket"
    assert "multipathtcp=0" in error.remedy
    assert "UV_USE_IO_URING=0" in error.remedy


def test_what_was_not_looked_at_is_said() -> None:
    """A tree that holds too much to look at is not called clean."""
    (found,) = judge(process(), complete=False)
    assert (found.subject, found.severity) == ("inspection", WARNING)


DECLARED = [
    ("/dev/kvm", stat.S_IFCHR, True),
    ("/dev/dri", stat.S_IFDIR, True),
    ("/mnt/disk", stat.S_IFBLK, True),
    ("/dev/shm/data", stat.S_IFDIR, False),
    ("/data", stat.S_IFDIR, False),
    ("/missing", 0, False),
]


@pytest.mark.parametrize(("path", "mode", "refused"), DECLARED)
def test_devices_among_the_mounts(path: str, mode: int, refused: bool) -> None:  # noqa: FBT001
    """A device can't be given to a function."""
    assert [each.subject for each in of_declared_mounts([(path, mode)])] == ["device"] * refused


def test_names_that_are_no_text_are_shown() -> None:
    """A message is UTF-8; a file's name may be any bytes."""
    held = socket("UNIX", 77)
    named = UnixSocket(77, "/tmp/\udcff", 0, listens=True, pending=())
    gone = frozenset({named.name})
    (found,) = judge(process(held), unix=(named,), gone=gone)
    assert "/tmp/\\xff" in found.message
