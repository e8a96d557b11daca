# SPDX-License-Identifier: Apache-2.0
"""Whether the pages that a first request writes are shared or copied: both ways are tried."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_snapshotter import eager
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from aetherless_snapshotter.cow_plan import Interval

log = structlog.get_logger()
#: How often each way is tried, in turns.
ROUNDS = 5
#: What is written less is shared: copies could save a tenth of a millisecond.
LEAST_WRITTEN = 2 << 20
#: Copies have to take less than this part of the time.
_CLEARLY = 0.95
#: An earlier choice holds until this many times as much is written, or as little.
_ALIKE = 2


@dataclass(frozen=True)
class Answered:
    """A restore that answered the warm-up: ns from its request to CRIU's and its own answer."""

    restore_ns: int
    answer_ns: int


def choose(
    folder: Path,
    first: Answered,
    written: Mapping[int, Sequence[Interval]],
    restore: Callable[[str], Answered],
    trial: snapshot_pb2.Trial,
    before: snapshot_pb2.Trial | None = None,
) -> tuple[str, list[Answered]]:
    """Try both ways when enough was written; note in ``trial`` what that showed.

    Neither is tried when an earlier revision's pages are shared, because that was measured to be no
    slower, and this one writes about as many: what a page costs depends on the host.

    Args:
        folder: the images on the host. A second set is left in it only when it is chosen.
        first: a restore with all pages shared.
        written: the pages that its answer wrote.
        restore: tries one more, from the images that it is given (a path of the sandbox).
        trial: gets the choice, the bytes written and both medians.
        before: the trial of the function's newest other snapshot; None for none.

    Returns:
        the chosen images, as the sandbox sees them, and the restores with them.

    Raises:
        OSError: the file system is full.
        Exception: what ``restore`` raises.
    """
    trial.written_bytes = sum(part.end - part.start for each in written.values() for part in each)
    trial.page_choice = snapshot_pb2.PAGE_CHOICE_SHARED
    if trial.written_bytes < LEAST_WRITTEN:
        return SNAPSHOT_TARGET, [first]
    if before is not None and _still_shared(before, trial.written_bytes):
        _take_medians(before, trial)
        return SNAPSHOT_TARGET, [first]
    eager.discard(folder)
    try:
        eager.keep(folder, written)
        shared, copied = _try_both(restore)
        _note(shared, copied, trial)
    finally:
        if trial.page_choice != snapshot_pb2.PAGE_CHOICE_EAGER:
            eager.discard(folder)
    if trial.page_choice == snapshot_pb2.PAGE_CHOICE_EAGER:
        return eager.TARGET, copied
    return SNAPSHOT_TARGET, [first, *shared]


def _still_shared(before: snapshot_pb2.Trial, written_bytes: int) -> bool:
    """Tell whether an earlier measurement says that so many written bytes are to be shared."""
    shared = before.page_choice == snapshot_pb2.PAGE_CHOICE_SHARED
    measured = before.HasField("shared_answer") and before.HasField("eager_answer")
    fewer, more = sorted((before.written_bytes, written_bytes))
    return shared and measured and more <= _ALIKE * fewer


def _try_both(restore: Callable[[str], Answered]) -> tuple[list[Answered], list[Answered]]:
    """Try both ways in turns, so that a busy moment meets both."""
    shared, copied = [], []
    for _ in range(ROUNDS):
        copied.append(restore(eager.TARGET))
        shared.append(restore(SNAPSHOT_TARGET))
    return shared, copied


def _note(
    shared: Sequence[Answered], copied: Sequence[Answered], trial: snapshot_pb2.Trial
) -> None:
    """Note the medians and what they say."""
    medians = [statistics.median(one.answer_ns for one in each) for each in (shared, copied)]
    trial.shared_answer.FromNanoseconds(round(medians[0]))
    trial.eager_answer.FromNanoseconds(round(medians[1]))
    if medians[1] < _CLEARLY * medians[0]:
        trial.page_choice = snapshot_pb2.PAGE_CHOICE_EAGER
    log.info(
        "pages chosen",
        copied=trial.page_choice == snapshot_pb2.PAGE_CHOICE_EAGER,
        written_bytes=trial.written_bytes,
        shared_ms=medians[0] / 1e6,
        eager_ms=medians[1] / 1e6,
    )


def carry_over(before: snapshot_pb2.Trial, trial: snapshot_pb2.Trial) -> None:
    """Note in a later trial what was chosen at the first: a snapshot's choice is made once."""
    trial.page_choice = before.page_choice
    trial.written_bytes = before.written_bytes
    _take_medians(before, trial)


def _take_medians(before: snapshot_pb2.Trial, trial: snapshot_pb2.Trial) -> None:
    """Note in a trial what an earlier one measured, and whose that was."""
    trial.measured_with = before.measured_with
    if before.HasField("shared_answer"):
        trial.shared_answer.CopyFrom(before.shared_answer)
    if before.HasField("eager_answer"):
        trial.eager_answer.CopyFrom(before.eager_answer)
