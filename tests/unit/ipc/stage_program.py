# SPDX-License-Identifier: Apache-2.0
"""A stage: reads the side socket's path, then serves until it is killed.

What it is given is words; it adds its own name. A word of the form ``<what>@<name>`` is for the
stage of that name: fail, die (unless it may have been handed out before), end (always), nap,
hold (until there is a file ``let-go`` beside the book). With several inputs their words stand in
brackets. It writes a line about each run to that book.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TextIO

from aetherless_client import current_request, serve

NAP_S = 0.4
LOOK_S = 0.01


def handle(name: str, book: TextIO, data: bytes) -> bytes:
    """Add the stage's name, unless a word asks for something else."""
    request = current_request()
    book.write(f"{name} {request.id} {request.attempt}\n")
    book.flush()
    words = data
    if request.inputs > 1:
        words = b"[" + b"|".join(request.parts) + b"]"
    for word in words.decode(errors="replace").split():
        obey(word, name, request.attempt)
    return words + b" " + name.encode()


def obey(word: str, name: str, attempt: int) -> None:
    """Do what a word asks for."""
    what, _, who = word.strip("[]|").partition("@")
    if who != name:
        return
    if what == "fail":
        raise ValueError("not like this")
    if what == "end" or (what == "die" and attempt == 1):
        os._exit(1)
    if what == "nap":
        time.sleep(NAP_S)
    while what == "hold" and not Path(sys.argv[3]).with_name("let-go").exists():
        time.sleep(LOOK_S)


def main() -> None:
    """Serve as the stage that is named, in so many threads, with such a book."""
    name, threads, book = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    path = sys.stdin.readline().strip()
    # The process that reads this is killed; one that is left alone must not stay.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    with Path(book).open("a") as written:
        serve(
            {"": partial(handle, name, written), "loud": lambda data: data.upper()},
            path=path,
            threads=threads,
        )


if __name__ == "__main__":
    main()
