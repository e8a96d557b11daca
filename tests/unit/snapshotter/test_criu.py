# SPDX-License-Identifier: Apache-2.0
"""CRIU: its version, its words, and a real dump of a small process whose images are then read."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aetherless_common.errors import FailedPrecondition
from aetherless_snapshotter import criu, images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROLOGUE = "import ctypes, os, socket\nos.setsid()\nlibc = ctypes.CDLL(None)\n"
EPILOGUE = """
assert kept != -1
os.write(1, b"ready\\n")
os.dup2(os.open("/dev/null", os.O_RDWR), 1)
import time
time.sleep(60)
"""


def test_the_version_is_new_enough(prefix: Path) -> None:
    """Set-up builds one that is."""
    assert criu.check_version(prefix / "criu") == criu.version(prefix / "criu")


def test_a_missing_criu(tmp_path: Path) -> None:
    """The path is in the error."""
    with pytest.raises(FailedPrecondition) as caught:
        criu.check_version(tmp_path / "criu")
    assert caught.value.reason == "CRIU_NOT_FOUND"


def test_an_old_criu(tmp_path: Path) -> None:
    """Both versions are in the error."""
    binary = tmp_path / "criu"
    binary.write_text("#!/bin/sh\necho Version: 3.17\n")
    binary.chmod(0o755)
    with pytest.raises(FailedPrecondition) as caught:
        criu.check_version(binary)
    assert caught.value.reason == "CRIU_TOO_OLD"
    assert caught.value.metadata["version"] == "3.17"


REFUSALS = [
    ("Can't dump file 7 of that type [600] (unknown anon_inode:[io_uring])", "io_uring"),
    ("Unsupported proto 262 for socket 5f3a", "MPTCP"),
    ("tty: Found dangling tty with sid 10 pgid 10 (pts) on peer fd 3.", "terminal"),
    ("Can't dump file 4 of that type [20666] (chr 10:229 /dev/fuse)", "device file"),
]


@pytest.mark.parametrize(("line", "cause"), REFUSALS)
def test_known_refusals_have_a_remedy(line: str, cause: str) -> None:
    """CRIU's words, reduced to the cause, and what to change."""
    log = (
        "(00.001) Dumping\n"
        f"(00.010) Error (criu/files-ext.c:94): {line}\n"
        "(00.011) Error (criu/cr-dump.c:1636): Dump files (pid: 10000) failed with -1\n"
        "(00.012) Error (criu/cr-dump.c:2128): Dumping FAILED.\n"
    )
    error = criu.refusal("hello", log, "")
    assert error.reason == "NOT_CHECKPOINTABLE"
    assert cause in error.metadata["cause"]
    assert line in error.metadata["cause"]
    assert error.remedy


def test_an_unknown_refusal_is_the_last_telling_line() -> None:
    """Lines that only say that something failed are left out."""
    log = "Error (a.c:1): flux is low\nError (b.c:2): Dumping FAILED.\n"
    error = criu.refusal("hello", log, "ignored")
    assert error.reason == "DUMP_FAILED"
    assert error.metadata["cause"] == "flux is low"


def test_without_a_log_the_answer_counts() -> None:
    """CRIU may end before it has a log."""
    assert criu.cause_of("", "no space left") == "no space left"
    assert criu.cause_of("") == "CRIU gave no reason"


@contextmanager
def program(script: str) -> Iterator[int]:
    """Run a Python program in a session of its own until the block ends; give its pid."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", PROLOGUE + script + EPILOGUE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.stdout.close()
        process.kill()
        process.wait(timeout=10)


def dump(prefix: Path, folder: Path, pid: int) -> tuple[criu.Answer, str]:
    """Dump a process; returns CRIU's answer and its log."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer = swrk(prefix, descriptor, criu.dump_request(pid, descriptor))
    finally:
        os.close(descriptor)
    return answer, (folder / criu.LOG_FILE).read_text()


def swrk(prefix: Path, images_fd: int, request: bytes) -> criu.Answer:
    """Have a CRIU of our own answer one request."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [prefix / "criu", "swrk", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), images_fd],
                env={"PATH": "/usr/sbin:/usr/bin", "CRIU_FAULT": "130"},
            )
        try:
            return criu.exchange(ours, request, 30)
        finally:
            ours.close()
            process.wait(timeout=30)


@pytest.mark.root
@pytest.mark.usefixtures("criu_modules")
def test_a_real_dump_is_read_and_changed(prefix: Path, tmp_path: Path) -> None:
    """The images name the process, its files and its listener, whose backlog is raised."""
    with program("kept = socket.create_server(('127.0.0.1', 0), backlog=5)") as pid:
        answer, log = dump(prefix, tmp_path, pid)
    assert answer.success, criu.error_lines(log)
    (process,) = images.process_tree(tmp_path)
    assert (process.pid, process.threads) == (pid, 1)
    assert process.command.startswith("python3")
    assert images.regular_files(tmp_path)[os.path.realpath("/usr/bin/python3")]
    assert images.resident_bytes(tmp_path) > 1 << 20
    assert images.listeners(tmp_path) == 1
    assert images.raise_backlogs(tmp_path) == 1
    assert images.raise_backlogs(tmp_path) == 0
    images.adopt_user_namespace(tmp_path, pid)


HOLDERS = {
    "io_uring": "kept = libc.syscall(425, 8, ctypes.create_string_buffer(120))",
    "MPTCP": "kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); kept.listen()",
    "device file": "kept = os.open('/dev/fuse', os.O_RDWR)",
}


@pytest.mark.root
@pytest.mark.usefixtures("criu_modules")
@pytest.mark.parametrize("what", HOLDERS)
def test_real_refusals_are_understood(prefix: Path, tmp_path: Path, what: str) -> None:
    """Programs that hold what can't be checkpointed, dumped for real."""
    with program(HOLDERS[what]) as pid:
        answer, log = dump(prefix, tmp_path, pid)
    assert not answer.success
    error = criu.refusal("hello", log, answer.words)
    assert error.reason == "NOT_CHECKPOINTABLE", criu.error_lines(log)
    assert what in error.metadata["cause"]
    assert error.remedy


@pytest.mark.usefixtures("criu_modules")
def test_the_restore_request_is_what_the_init_sends() -> None:
    """It reads the images at the path where the sandbox has them, as a child of the init."""
    request = images.module("rpc").criu_req()
    request.ParseFromString(criu.restore_request())
    assert request.opts.images_dir == "/snap"
    assert request.opts.rst_sibling
    assert request.opts.unprivileged
    assert not request.keep_open


@pytest.mark.parametrize("raw", [b"", b"\x19\x43\x56\x54", b"\x19\x43\x56\x54\0\0\0\0\x05\0\0\0ab"])
def test_a_cut_image_is_refused(tmp_path: Path, raw: bytes) -> None:
    """A file that ends in the middle is never taken for a shorter one."""
    path = tmp_path / "x.img"
    path.write_bytes(raw)
    if raw == b"\x19\x43\x56\x54":
        assert images.Image.read(path).entries == []
        return
    with pytest.raises(ValueError, match=r"x\.img"):
        images.Image.read(path)
