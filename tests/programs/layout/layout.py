# SPDX-License-Identifier: Apache-2.0
"""A tree of processes whose memory is laid out as the variable LAYOUT says, and who know it.

LAYOUT is a list of steps in JSON, each a list that begins with the name of a function below; the
step ["fork", [...]] makes a child that goes on with steps of its own. Then nobody does anything
until asked: GET /digest answers with what each process reads in its own memory, GET /scribble
overwrites all that may be written, GET /release gives anonymous memory back to the kernel and says
what each process reads there then.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import mmap
import os
import random
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

PAGE = mmap.PAGESIZE
R, W, X = 1, 2, 4
SHARED, PRIVATE, FIXED, ANONYMOUS = 0x1, 0x2, 0x10, 0x20
GROWSDOWN, LOCKED, NORESERVE = 0x100, 0x2000, 0x4000
DONTNEED = 4
CODE = {
    "x86_64": lambda number: b"\xb8" + number.to_bytes(4, "little") + b"\xc3",
    "aarch64": lambda number: (
        (0x52800000 | (number & 0xFFFF) << 5).to_bytes(4, "little") + b"\xc0\x03\x5f\xd6"
    ),
}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 4, ctypes.c_int64]
libc.sbrk.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_ssize_t]
for call in (libc.mprotect, libc.madvise):
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

chance = random.Random(int(os.environ.get("SEED", "0")))
areas: list[list[int]] = []  # start, pages, protection
functions: list[int] = []
emptied: list[tuple[int, int]] = []  # start, pages
paths: dict[int, Path] = {}  # by descriptor
children: list[socket.socket] = []


def check(result: int) -> None:
    """Fail on a refused system call."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def take(pages: int, flags: int, file: int = -1, offset: int = 0, protection: int = R | W) -> int:
    """Map pages."""
    start = libc.mmap(None, pages * PAGE, protection, flags, file, offset)
    if start in (None, 2**64 - 1):
        check(-1)
    areas.append([start, pages, protection])
    return int(start)


def fill(start: int, pages: int, percent: int) -> None:
    """Write some of the pages, in runs."""
    page = 0
    while page < pages:
        run = min(chance.randrange(1, 40), pages - page)
        if chance.randrange(100) < percent:
            ctypes.memmove(start + page * PAGE, chance.randbytes(run * PAGE), run * PAGE)
        page += run


def file_of(pages: int) -> int:
    """Return the descriptor of a new file that lies in a tree that the snapshot keeps."""
    descriptor, path = tempfile.mkstemp()
    os.write(descriptor, chance.randbytes(pages * PAGE))
    os.fchmod(descriptor, 0o600)
    paths[descriptor] = Path(path)
    return descriptor


# Steps


def anonymous(pages: int, percent: int, protection: int, advice: int) -> None:
    """Private anonymous memory, partly written, then protected and advised."""
    start = take(pages, PRIVATE | ANONYMOUS)
    fill(start, pages, percent)
    if advice:
        check(libc.madvise(start, pages * PAGE, advice))
    check(libc.mprotect(start, pages * PAGE, protection))
    areas[-1][2] = protection
    if protection & W and not advice:
        emptied.append((start, pages))


def reserve(megabytes: int, pages: int, percent: int) -> None:
    """A large reservation of which little is used, as runtimes make it."""
    whole = (megabytes << 20) // PAGE
    start = take(whole, PRIVATE | ANONYMOUS | NORESERVE, protection=0)
    used = start + chance.randrange(whole - pages) * PAGE
    check(libc.mprotect(used, pages * PAGE, R | W))
    fill(used, pages, percent)
    areas[-1] = [used, pages, R | W]


def shared(pages: int, percent: int) -> None:
    """Shared anonymous memory."""
    fill(take(pages, SHARED | ANONYMOUS), pages, percent)


def private_file(pages: int, percent: int, fate: str) -> None:
    """A private mapping of a file from its second page on, partly written."""
    descriptor = file_of(pages + 1)
    start = take(pages, PRIVATE, descriptor, PAGE)
    fill(start, pages, percent)
    if fate == "deleted":
        paths[descriptor].unlink()
    os.close(descriptor)


def shared_file(pages: int, percent: int) -> None:
    """A shared mapping of a file."""
    descriptor = file_of(pages)
    fill(take(pages, SHARED, descriptor), pages, percent)
    os.close(descriptor)


def memfd(pages: int, percent: int) -> None:
    """A private mapping of a memfd."""
    descriptor = os.memfd_create("layout")
    os.write(descriptor, chance.randbytes(pages * PAGE))
    fill(take(pages, PRIVATE, descriptor), pages, percent)
    os.close(descriptor)


def growing(pages: int) -> None:
    """A mapping that grows down, as a stack."""
    start = take(pages, PRIVATE | ANONYMOUS | GROWSDOWN)
    fill(start, pages, 100)


def locked(pages: int) -> None:
    """Memory that is resident by intent."""
    fill(take(pages, PRIVATE | ANONYMOUS | LOCKED), pages, 50)


def heap(pages: int, percent: int) -> None:
    """More of the program's break."""
    start = libc.sbrk(pages * PAGE)
    areas.append([start, pages, R | W])
    fill(start, pages, percent)


def code(number: int) -> None:
    """Compiled code, and room beside it."""
    start = take(20, PRIVATE | ANONYMOUS)
    fill(start, 20, 60)
    text = CODE[os.uname().machine](number)
    ctypes.memmove(start, text, len(text))
    check(libc.mprotect(start, 20 * PAGE, R | X))
    areas[-1][2] = R | X
    functions.append(start)


def program(text: str) -> None:
    """A file mapped to run that holds a text."""
    descriptor = file_of(2)
    os.pwrite(descriptor, text.encode(), PAGE)
    take(2, PRIVATE, descriptor, protection=R | X)
    os.close(descriptor)


def hole(which: int, how: str) -> None:
    """Cut, protect or empty the middle of an earlier area."""
    start, pages, protection = areas[which % len(areas)]
    if pages < 3 or start in functions:
        return
    third = pages // 3
    middle = start + third * PAGE
    if how == "unmap":
        check(libc.munmap(middle, third * PAGE))
    elif how == "protect":
        check(libc.mprotect(middle, third * PAGE, R))
    else:
        libc.madvise(middle, third * PAGE, DONTNEED)  # locked memory stays as it is
        return
    areas[which % len(areas)] = [start, third, protection]
    areas.append([middle + third * PAGE, pages - 2 * third, protection])
    if how == "protect":
        areas.append([middle, third, R])


def touch(which: int, percent: int) -> None:
    """Write in an earlier area; in a child that is inherited memory."""
    start, pages, protection = areas[which % len(areas)]
    if protection & W:
        fill(start, pages, percent)


def fork(steps: list[list[Any]]) -> None:
    """Make a child that goes on alone."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        children.append(ours)
        return
    ours.close()
    for child in children:
        child.close()
    children.clear()
    areas[:] = [area for area in areas if is_mapped(area)]
    build(steps)
    theirs.sendall(b"built")
    serve_parent(theirs)


def is_mapped(area: list[int]) -> bool:
    """Tell whether a child inherited an area (MADV_DONTFORK)."""
    vector = (ctypes.c_ubyte * area[1])()
    return bool(libc.mincore(area[0], area[1] * PAGE, vector) == 0)


def build(steps: list[list[Any]]) -> None:
    """Do all steps, and wait until the children have done theirs."""
    for name, *arguments in steps:
        globals()[name](*arguments)
    for child in children:
        assert child.recv(5) == b"built"


# What is asked


def digest() -> list[str]:
    """Return what this process and then its children read in their memory."""
    found = hashlib.sha256()
    for start, pages, protection in areas:
        if protection & R:
            found.update(ctypes.string_at(start, pages * PAGE))
    for function in functions:
        found.update(str(ctypes.CFUNCTYPE(ctypes.c_int)(function)()).encode())
    return [found.hexdigest(), *(text for child in children for text in ask(child, b"d"))]


def scribble() -> list[str]:
    """Write all private memory that may be written, here and in the children."""
    for start, pages, protection in areas:
        if protection & W:
            ctypes.memset(start, os.getpid() & 0xFF, pages * PAGE)
    return ["", *(text for child in children for text in ask(child, b"s"))]


def release() -> list[str]:
    """Give memory back and say what is read there, here and in the children."""
    found: set[int] = set()
    for start, pages in emptied:
        check(libc.madvise(start, pages * PAGE, DONTNEED))
        found.update(ctypes.string_at(start, pages * PAGE))
    return [str(sorted(found)), *(text for child in children for text in ask(child, b"r"))]


def ask(child: socket.socket, what: bytes) -> list[str]:
    """Ask a child."""
    child.sendall(what)
    answer: list[str] = json.loads(child.recv(65536))
    return answer


def serve_parent(parent: socket.socket) -> None:
    """Answer a parent until it ends."""
    while what := parent.recv(1):
        parent.sendall(json.dumps(ANSWERS[what]()).encode())
    os._exit(0)


def serve_clients(listener: socket.socket) -> None:
    """Answer clients, one after the other."""
    while True:
        client, _ = listener.accept()
        with client:
            path = client.recv(4096).split()[1]
            body = json.dumps(ANSWERS[path[1:2]]()).encode()
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


ANSWERS = {b"d": digest, b"s": scribble, b"r": release, b"": list}

gc.disable()
build(json.loads(os.environ["LAYOUT"]))
print(json.dumps(digest()))
sys.stdout.flush()
serve_clients(socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=64))
