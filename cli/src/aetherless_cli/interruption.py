# SPDX-License-Identifier: Apache-2.0
"""SIGINT, SIGTERM and SIGHUP as one exception, and a time in which they are not heard."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """One of the signals came; not an Exception, so that nothing on the way swallows it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the signals raise Interrupted in here."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, _raise)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hear none of the signals in here: what has begun is brought to its end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Hear the signals at the end only, so that what is made in here is known before.

    They are not blocked: a process that is started would inherit that. Threads beside the main one
    hear none anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: heard.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for missed in heard:
            signal.raise_signal(missed)


def _raise(number: int, _: object) -> None:
    raise Interrupted(signal.Signals(number).name)
