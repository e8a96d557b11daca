# SPDX-License-Identifier: Apache-2.0
"""CRIU as a client sees it: requests, answers, its version, and what its log means to a user.

``criu swrk`` speaks one protobuf message (``images/rpc.proto``) per packet of a SOCK_SEQPACKET
socket: a request, then one answer. A restore's request is prepared here and sent by the sandbox's
init; a dump's goes through ``exchange``.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from aetherless_snapshotter import errors, images
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from aetherless_common.errors import FailedPrecondition

#: Older versions fail on kernels since 6.18 (vDSO, SO_PASSSEC).
REQUIRED_VERSION = (4, 2, 1)
#: How long a dump may take in CRIU, in seconds; far above any that ends well.
DUMP_TIMEOUT = 120
_LOG_LEVEL = 4
_MESSAGE_BYTES = 1 << 16
_VERSION_TIMEOUT = 10
#: CRIU's log of a dump, in the folder of the images.
LOG_FILE = "dump.log"
#: The largest deleted file that a dump takes along, in bytes.
GHOST_LIMIT = 256 << 20
_SUMMARY = re.compile(
    r"(Dumping|Restoring) FAILED|Can't (dump|restore) .*task|Unable to|[A-Z][a-z ]+ failed with -1"
    r"|(Dump|Collect) [a-z]+ \(pid: \d+\) failed"
)
_ERROR_LINE = re.compile(r"Error \([^)]*\): (?P<words>.*)")


@dataclass(frozen=True)
class Answer:
    """What CRIU said to a request."""

    success: bool
    errno: int
    words: str


def _rpc() -> Any:
    """Return the generated module of rpc.proto."""
    return images.module("rpc")


def restore_request(images_dir: str = SNAPSHOT_TARGET, *, leave_stopped: bool = False) -> bytes:
    """Return the serialized request that restores the images in ``images_dir`` of a sandbox.

    The tree becomes a child of the init (``rst_sibling``); nothing but its own log level is left
    to chance, since the answer must come within milliseconds. With ``leave_stopped`` its processes
    are stopped before they run any code of their own.
    """
    rpc = _rpc()
    request = rpc.criu_req(type=rpc.RESTORE)
    _common(request.opts)
    request.opts.images_dir_fd = -1
    request.opts.images_dir = images_dir
    request.opts.log_level = 1
    request.opts.log_to_stderr = True
    request.opts.rst_sibling = True
    request.opts.leave_stopped = leave_stopped
    return bytes(request.SerializeToString())


def dump_request(pid: int, images_fd: int) -> bytes:
    """Return the serialized request that dumps the tree of ``pid`` (an id inside the sandbox).

    ``images_fd`` is a descriptor number in the CRIU process, for images and log alike; it is named
    through CRIU's own /proc, because CRIU looks descriptors up at its peer, which lives in another
    pid namespace. The tree is left stopped: its files are copied before it is ended.
    """
    rpc = _rpc()
    request = rpc.criu_req(type=rpc.DUMP)
    _common(request.opts)
    request.opts.pid = pid
    request.opts.images_dir_fd = -1
    request.opts.images_dir = f"/proc/self/fd/{images_fd}"
    request.opts.log_file = LOG_FILE
    request.opts.log_level = _LOG_LEVEL
    request.opts.ext_unix_sk = True
    request.opts.leave_stopped = True
    request.opts.timeout = DUMP_TIMEOUT
    request.opts.ghost_limit = GHOST_LIMIT
    return bytes(request.SerializeToString())


def _common(opts: Any) -> None:
    """Set what dump and restore have to agree on."""
    rpc = _rpc()
    opts.network_lock = rpc.SKIP
    opts.manage_cgroups = True
    opts.manage_cgroups_mode = rpc.IGNORE
    opts.tcp_established = True
    opts.skip_file_rwx_check = True
    opts.unprivileged = True
    opts.file_locks = True
    opts.link_remap = False


def exchange(connection: socket.socket, request: bytes, timeout: float) -> Answer:
    """Send one request and return CRIU's answer.

    Raises:
        TimeoutError: no answer within ``timeout`` seconds.
        EOFError: CRIU ended without an answer.
    """
    connection.settimeout(timeout)
    connection.send(request)
    raw = connection.recv(_MESSAGE_BYTES)
    if not raw:
        raise EOFError("CRIU ended without an answer")
    answer = _rpc().criu_resp()
    answer.ParseFromString(raw)
    return Answer(answer.success, answer.cr_errno, answer.cr_errmsg)


@cache
def version(binary: Path) -> str:
    """Return the version of the CRIU at ``binary``, for example "4.2.1".

    Raises:
        FailedPrecondition: CRIU_NOT_FOUND, there is none or it does not start.
    """
    try:
        output = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        raise errors.criu_not_found(binary) from None
    match = re.search(r"Version: (\d+(?:\.\d+)*)", output)
    if match is None:
        raise errors.criu_not_found(binary)
    return match.group(1)


def check_version(binary: Path) -> str:
    """Return the version when it is new enough.

    Raises:
        FailedPrecondition: CRIU_NOT_FOUND or CRIU_TOO_OLD.
    """
    found = version(binary)
    if tuple(int(part) for part in found.split(".")) < REQUIRED_VERSION:
        raise errors.criu_too_old(binary, found, ".".join(map(str, REQUIRED_VERSION)))
    return found


@dataclass(frozen=True)
class Known:
    """A refusal of CRIU that we know: how its log tells, what it means, what to do."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str


def _known(pattern: str, cause: str, remedy: str) -> Known:
    return Known(re.compile(pattern), cause, remedy)


#: Checked in order against every Error line of a log, the last line first.
KNOWN_REFUSALS = (
    _known(
        # Linux refuses io_uring descriptors in SCM_RIGHTS, by which CRIU fetches descriptors.
        r"io_uring|send_fds failed \(-22\)|Can't retrieve FDs from socket",
        "it holds an io_uring",
        "let it use epoll: UV_USE_IO_URING=0 for libuv (the default here), no uvloop, or turn"
        " io_uring off in the program's own configuration",
    ),
    _known(
        r"[Uu]nsupported proto(col)? 262|MPTCP|mptcp|proto 262",
        "it holds an MPTCP socket",
        "use plain TCP: GODEBUG=multipathtcp=0 for Go (the default here unless the function sets"
        " GODEBUG), or ListenConfig.SetMultipathTCP(false)",
    ),
    _known(
        r"\btty\b|/dev/pts|/dev/ptmx|/dev/tty|terminal|--shell-job|\bpty\b",
        "it holds a terminal",
        "don't open /dev/tty, /dev/ptmx or a pseudo-terminal before the first request",
    ),
    _known(
        r"/dev/nvidia|/dev/dri|/dev/kvm|/dev/fuse|/dev/net|^tun: |of that type \[[26]0\d{3}\]"
        r"|[Cc]haracter device|chrdev|[Bb]lock device|device file",
        "it holds an open device file",
        "open devices at the first request, or don't use them in a function",
    ),
    _known(
        r"[Ii]netsk.*RAW|SOCK_RAW|[Uu]nsupported socket type|packet socket|AF_PACKET",
        "it holds a raw or packet socket",
        "use TCP, UDP or Unix sockets",
    ),
    _known(
        r"[Uu]n(known|supported) socket|Sockets \(family \d+ proto \d+\) are not collected",
        "it holds a socket of a family that can't be checkpointed",
        "use TCP, UDP, Unix or netlink sockets",
    ),
    _known(
        r"anon_inode:\[perf_event\]|anon_inode:\[bpf|anon_inode:\[userfaultfd\]|userfaultfd",
        "it holds a perf event, BPF or userfaultfd descriptor",
        "turn the feature that uses it off (profiling, tracing, live migration)",
    ),
    _known(
        r"inotify|fanotify|fsnotify|Can't dump that handle|handle .*can't be opened",
        "it watches files (inotify or fanotify) in a way that can't be checkpointed",
        "turn automatic reloading off",
    ),
    _known(
        r"[Cc]an't dump ghost file|ghost file .*too large|ghost-limit",
        "it has a large deleted file open",
        "close deleted temporary files, or keep them below 256 MiB",
    ),
    _known(
        r"traced by|being traced|has a tracer|Unseizable non-zombie",
        "another program traces it (debugger, strace)",
        "deploy it without a debugger attached",
    ),
    _known(
        r"hugetlb|SysV|semaphore.*unsupported",
        "it uses huge pages or System V objects that can't be checkpointed",
        "turn them off in the program's configuration",
    ),
)


def cause_of(log: str, words: str = "") -> str:
    """Reduce a log of CRIU to the cause: the last Error line that says more than "failed".

    Without any Error line the cause is ``words``, what CRIU's answer said.
    """
    causes = error_lines(log)
    telling = [line for line in causes if not _is_summary(line)]
    return (telling or causes or [words.strip() or "CRIU gave no reason"])[-1]


def error_lines(log: str) -> list[str]:
    """Return what CRIU's Error lines say, oldest first."""
    matches = (_ERROR_LINE.search(line) for line in log.splitlines())
    return [match["words"].strip() for match in matches if match]


def _is_summary(line: str) -> bool:
    """Tell whether an Error line only repeats that something failed."""
    return bool(_SUMMARY.match(line))


def refusal(function: str, log: str, words: str) -> FailedPrecondition:
    """Return the typed error for a refused dump: NOT_CHECKPOINTABLE when the remedy is known."""
    for line in reversed(error_lines(log)):
        for known in KNOWN_REFUSALS:
            if known.pattern.search(line):
                return errors.not_checkpointable(function, f"{known.cause} ({line})", known.remedy)
    return errors.dump_failed(function, cause_of(log, words))
