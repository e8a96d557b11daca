# SPDX-License-Identifier: Apache-2.0
"""A hostile handler: /NAME tries one way out of the sandbox and tells how far it came.

The answer is {"outcome": "denied" or "reached", "detail": text}. Attempts that would harm a host
when they succeed are chosen so that success changes nothing (signal 0, a write of what is there).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = secrets.token_hex(8)
COUNTER = count(1)
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
SYS_BPF, SYS_PERF_EVENT_OPEN = 321, 298
AARCH64 = {SYS_BPF: 280, SYS_PERF_EVENT_OPEN: 241}
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CONNECT_TIMEOUT_S = 1.0

Query = dict[str, list[str]]


def checked(result: int) -> int:
    """Return a C call's result; OSError with errno when it is -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(number: int, *arguments: int | bytes) -> int:
    """Make a system call by its x86-64 number."""
    if os.uname().machine == "aarch64":
        number = AARCH64.get(number, number)
    return checked(LIBC.syscall(number, *arguments))


def write_back(path: str) -> str:
    """Open a kernel setting for writing and write what it already holds."""
    text = Path(path).read_text()
    Path(path).write_text(text)
    return f"wrote {path}"


def core_pattern(_: Query) -> str:
    """Reach for the program that the host's kernel runs at a crash."""
    return write_back("/proc/sys/kernel/core_pattern")


def network_setting(_: Query) -> str:
    """Change a setting of the sandbox's network that the sandbox's own uid 0 owns."""
    return write_back("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def more_namespaces(_: Query) -> str:
    """Allow itself user namespaces of its own."""
    return write_back("/proc/sys/user/max_user_namespaces")


def sysrq(_: Query) -> str:
    """Open the kernel's emergency keys for writing."""
    with Path("/proc/sysrq-trigger").open("w"):
        return "opened"


def read_path(query: Query) -> str:
    """Read a file or list a folder that the caller names."""
    path = Path(query["path"][0])
    if path.is_dir():
        return " ".join(sorted(entry.name for entry in path.iterdir()))
    return path.read_bytes()[:200].decode(errors="replace")


def write_path(query: Query) -> str:
    """Make a file in a folder that the caller names."""
    path = Path(query["path"][0], f"probe-{secrets.token_hex(4)}")
    path.write_text("probe")
    path.unlink()
    return f"wrote {path}"


def unix_connect(query: Query) -> str:
    """Connect to a Unix socket that the caller names; a leading @ means abstract."""
    path = query["path"][0]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + path[1:] if path.startswith("@") else path)
    return "connected"


def tcp_connect(query: Query) -> str:
    """Connect to an address and port that the caller names."""
    address = (query["host"][0], int(query["port"][0]))
    with socket.create_connection(address, CONNECT_TIMEOUT_S):
        return "connected"


def gateway(_: Query) -> str:
    """Return the IPv4 gateway, which is the host's end of the link."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return ""


def processes(_: Query) -> str:
    """List the processes that can be seen, by name."""
    seen = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return " ".join(sorted((entry / "comm").read_text().strip() for entry in seen))


def ptrace(_: Query) -> str:
    """Trace the sandbox's pid 1."""
    checked(LIBC.ptrace(PTRACE_SEIZE, 1, None, None))
    return "seized"


def raw_socket(_: Query) -> str:
    """Open a raw IP socket."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()
    return "opened"


def packet_socket(_: Query) -> str:
    """Open a packet socket."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "opened"


def mount(_: Query) -> str:
    """Mount a tmpfs."""
    checked(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None))
    return "mounted"


def unmount(_: Query) -> str:
    """Take the private /proc away, to see what lies below."""
    checked(LIBC.umount2(b"/proc", 2))
    return "unmounted"


def in_child(attempt: Callable[[], object]) -> str:
    """Try in a child process, so that success does not change the server."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            attempt()
        except OSError as error:
            code = error.errno or errno.EIO
        os.write(writer, str(code).encode())
        os._exit(0)
    os.close(writer)
    code = int(os.read(reader, 16))
    os.close(reader)
    os.waitpid(child, 0)
    if code:
        raise OSError(code, os.strerror(code))
    return "done"


def unshare(flags: int) -> Callable[[Query], str]:
    """Return an attempt to make namespaces."""
    return lambda _: in_child(lambda: checked(LIBC.unshare(flags)))


def join_init(_: Query) -> str:
    """Open the network namespace of pid 1 for joining it."""
    os.close(os.open("/proc/1/ns/net", os.O_RDONLY))
    return "opened"


def init_root(_: Query) -> str:
    """Look at the world through pid 1's root."""
    return " ".join(entry.name for entry in Path("/proc/1/root").iterdir())


def init_memory(_: Query) -> str:
    """Open pid 1's memory."""
    os.close(os.open("/proc/1/mem", os.O_RDONLY))
    return "opened"


def bpf(_: Query) -> str:
    """Make a BPF map."""
    os.close(syscall(SYS_BPF, 0, struct.pack("=IIIII", 2, 4, 4, 1, 0), 20))
    return "made"


def perf(_: Query) -> str:
    """Watch the whole machine's processor."""
    attributes = struct.pack("=IIQ", 0, 64, 0) + bytes(48)
    os.close(syscall(SYS_PERF_EVENT_OPEN, attributes, -1, 0, -1, 0))
    return "opened"


def mknod(_: Query) -> str:
    """Make a device file for the first disk."""
    os.mknod("/tmp/probe-disk", 0o600 | 0o060000, os.makedev(8, 0))
    Path("/tmp/probe-disk").unlink()
    return "made"


def chroot(_: Query) -> str:
    """Change the root."""
    return in_child(lambda: os.chroot("/tmp"))


def become_root(_: Query) -> str:
    """Become uid 0 of the sandbox."""
    return in_child(lambda: os.setresuid(0, 0, 0))


def hostname(_: Query) -> str:
    """Set the host name to what it is."""
    name = socket.gethostname().encode()
    return in_child(lambda: checked(LIBC.sethostname(name, len(name))))


def status(_: Query) -> str:
    """Return what the kernel says of this process's rights."""
    wanted = (
        "Uid",
        "Gid",
        "Groups",
        "NoNewPrivs",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
    )
    lines = Path("/proc/self/status").read_text().splitlines()
    return "\n".join(line for line in lines if line.split(":")[0] in wanted)


def descriptors(_: Query) -> str:
    """Return what this process's open files are."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return "\n".join(sorted(links))


def mounts(_: Query) -> str:
    """Return the sandbox's mount table."""
    return Path("/proc/self/mountinfo").read_text()


def eat(query: Query) -> str:
    """Use as much memory as the caller names, in MiB."""
    block = bytearray(int(query["mb"][0]) << 20)
    for place in range(0, len(block), 4096):
        block[place] = 1
    return f"ate {len(block)}"


ATTEMPTS: dict[str, Callable[[Query], str]] = {
    attempt.__name__: attempt
    for attempt in (
        core_pattern,
        network_setting,
        more_namespaces,
        sysrq,
        read_path,
        write_path,
        unix_connect,
        tcp_connect,
        gateway,
        processes,
        ptrace,
        raw_socket,
        packet_socket,
        mount,
        unmount,
        join_init,
        init_root,
        init_memory,
        bpf,
        perf,
        mknod,
        chroot,
        become_root,
        hostname,
        status,
        descriptors,
        mounts,
        eat,
    )
} | {
    "unshare_user": unshare(CLONE_NEWUSER),
    "unshare_net": unshare(CLONE_NEWNET),
    "unshare_mount": unshare(CLONE_NEWNS),
    "unshare_pid": unshare(CLONE_NEWPID),
    "unshare_all": unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS),
}


def tried(name: str, query: Query) -> dict[str, object]:
    """Make an attempt and say how it went."""
    try:
        return {"outcome": "reached", "detail": ATTEMPTS[name](query)}
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return {"outcome": "denied", "detail": code}


class Handler(BaseHTTPRequestHandler):
    """Runs the attempt that a request names; / answers what the process remembers."""

    def do_GET(self) -> None:
        """Answer one request."""
        address = urlsplit(self.path)
        name = address.path.strip("/")
        memory = {"token": TOKEN, "count": next(COUNTER), "pid": os.getpid()}
        answer = tried(name, parse_qs(address.query)) if name in ATTEMPTS else memory
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
