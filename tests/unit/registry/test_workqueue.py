# SPDX-License-Identifier: Apache-2.0
"""Keys are handed out once at a time, when they are due."""

from __future__ import annotations

import threading

from aetherless_registry.workqueue import WorkQueue

JOIN_S = 20.0


def test_a_key_is_handed_out_once() -> None:
    """Added twice, it is one piece of work; the earliest due time counts."""
    queue = WorkQueue()
    queue.add("a", delay=3600)
    queue.add("a")
    queue.add("a", delay=3600)
    assert queue.get() == "a"
    queue.done("a")
    queue.add("b")
    assert queue.get() == "b"


def test_what_is_added_during_work_comes_after_it() -> None:
    """Never two workers on one key, and no news is lost."""
    queue = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.get() == "b"
    queue.done("a")
    assert queue.get() == "a"


def test_due_keys_come_before_later_ones() -> None:
    """A worker that waits for a later key takes an earlier one that is added."""
    queue = WorkQueue()
    queue.add("later", delay=3600)
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.add("now", delay=0.01)
    worker.join(JOIN_S)
    assert got == ["now"]


def test_closing_ends_the_wait() -> None:
    """Whoever waits is told, and whoever comes later."""
    queue = WorkQueue()
    got: list[str | None] = ["unset"]
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.close()
    worker.join(JOIN_S)
    queue.add("a")
    assert got[-1] is None
    assert queue.get() is None
