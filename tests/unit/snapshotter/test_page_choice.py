# SPDX-License-Identifier: Apache-2.0
"""The pages that a first request writes: found, tried both ways, and restored as was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_common.errors import DataLoss
from aetherless_snapshotter import eager, page_choice, processes
from aetherless_snapshotter.instance import Instance
from aetherless_snapshotter.page_choice import Answered
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET
from aetherless_snapshotter.trial import TrialRun
from framework.sandbox_world import SNAPSHOT, SandboxWorld, get, sandbox_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless_snapshotter.cow_plan import Interval

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

WRITTEN = 8 << 20
#: Counts its requests in every page of a large block.
HANDLER = f"""
import os, socket

block = bytearray(os.urandom({WRITTEN}))
served = 0
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True:
    connection, _ = listener.accept()
    with connection:
        if not connection.recv(65536):
            continue
        served += 1
        for place in range(0, len(block), 4096):
            block[place] = served
        body = str(served).encode()
        head = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        connection.sendall(head + body)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SandboxWorld]:
    """Return a place for sandboxes."""
    with sandbox_world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(
    place: SandboxWorld, tmp_path: Path, make_workload: MakeWorkload
) -> instance_pb2.Workload:
    """Return a function whose snapshot was made."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    made = make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))
    place.checkpoint(made)
    return made


def written(place: SandboxWorld, workload: instance_pb2.Workload) -> dict[int, list[Interval]]:
    """Return what the first request of a clone writes."""
    sandbox, _ = place.clone(workload)
    try:
        with place.place.client() as client:
            assert get(client)[1] == b"2"
        (root,) = (
            pid for pid in processes.children(sandbox.init_pid) if processes.inner_pid(pid) >= 10000
        )
        return eager.written(root)
    finally:
        sandbox.delete()


def size(pages: dict[int, list[Interval]]) -> int:
    """Return the bytes of all intervals."""
    return sum(part.end - part.start for parts in pages.values() for part in parts)


def test_what_a_request_writes_is_found(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """The block, and little more: what was only read is shared."""
    found = written(place, workload)
    assert list(found) == [10000]
    assert WRITTEN <= size(found) < WRITTEN + (3 << 20)


@pytest.mark.parametrize(("copied_ns", "chosen"), [(940, "eager"), (960, "")])
def test_the_faster_way_is_chosen(
    place: SandboxWorld, workload: instance_pb2.Workload, copied_ns: int, chosen: str
) -> None:
    """By the medians of both in turns; the second set stays only when it is clearly faster."""
    folder = place.builder.store.images(SNAPSHOT)
    trial = snapshot_pb2.Trial()
    tried: list[str] = []

    def restore(images_dir: str) -> Answered:
        tried.append(images_dir)
        return Answered(1, 1000 if images_dir == SNAPSHOT_TARGET else copied_ns)

    first, pages = Answered(1, 5000), written(place, workload)
    images_dir, times = page_choice.choose(folder, first, pages, restore, trial)
    assert tried == [eager.TARGET, SNAPSHOT_TARGET] * page_choice.ROUNDS
    assert images_dir == (eager.TARGET if chosen else SNAPSHOT_TARGET)
    assert (folder / eager.FOLDER).exists() == bool(chosen)
    assert len(times) == page_choice.ROUNDS + (not chosen)
    assert trial.written_bytes == size(pages)
    assert trial.page_choice == (
        snapshot_pb2.PAGE_CHOICE_EAGER if chosen else snapshot_pb2.PAGE_CHOICE_SHARED
    )
    assert trial.shared_answer.ToNanoseconds() == 1000
    assert trial.eager_answer.ToNanoseconds() == copied_ns


def test_few_pages_are_shared_untried(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """Nothing to win is no reason to restore ten times more."""
    trial = snapshot_pb2.Trial()
    first = Answered(1, 2)
    folder = place.builder.store.images(SNAPSHOT)
    few = {10000: written(place, workload)[10000][:1]}
    few[10000] = [few[10000][0]._replace(end=few[10000][0].start + 4096)]
    chosen = page_choice.choose(folder, first, few, pytest.fail, trial)
    assert chosen == (SNAPSHOT_TARGET, [first])
    assert (trial.page_choice, trial.written_bytes) == (snapshot_pb2.PAGE_CHOICE_SHARED, 4096)
    assert not trial.HasField("shared_answer")


def measured(written_bytes: int, choice: snapshot_pb2.PageChoice.ValueType) -> snapshot_pb2.Trial:
    """Return the trial of an earlier snapshot that measured both ways."""
    trial = snapshot_pb2.Trial(written_bytes=written_bytes, page_choice=choice)
    trial.shared_answer.FromNanoseconds(700)
    trial.eager_answer.FromNanoseconds(800)
    trial.measured_with = "snapshots/earlier"
    return trial


def test_what_an_earlier_revision_measured_holds(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """No restore is made for a choice; the trial tells whose times it has."""
    before = measured(WRITTEN, snapshot_pb2.PAGE_CHOICE_SHARED)
    trial, first = snapshot_pb2.Trial(), Answered(1, 2)
    folder, pages = place.builder.store.images(SNAPSHOT), written(place, workload)
    chosen = page_choice.choose(folder, first, pages, pytest.fail, trial, before)
    assert chosen == (SNAPSHOT_TARGET, [first])
    assert (trial.page_choice, trial.written_bytes) == (before.page_choice, size(pages))
    assert (trial.shared_answer, trial.eager_answer) == (before.shared_answer, before.eager_answer)
    assert trial.measured_with == "snapshots/earlier"
    assert not (folder / eager.FOLDER).exists()


@pytest.mark.parametrize(
    "before",
    [
        measured(WRITTEN, snapshot_pb2.PAGE_CHOICE_EAGER),
        measured(WRITTEN // 3, snapshot_pb2.PAGE_CHOICE_SHARED),
        measured(WRITTEN * 4, snapshot_pb2.PAGE_CHOICE_SHARED),
        snapshot_pb2.Trial(written_bytes=WRITTEN, page_choice=snapshot_pb2.PAGE_CHOICE_SHARED),
    ],
    ids=["copied", "fewer", "more", "unmeasured"],
)
def test_an_earlier_choice_that_may_not_hold_is_measured_anew(
    place: SandboxWorld, workload: instance_pb2.Workload, before: snapshot_pb2.Trial
) -> None:
    """Pages were copied, were many more or fewer, or neither way was measured."""
    folder, trial = place.builder.store.images(SNAPSHOT), snapshot_pb2.Trial()
    first, pages = Answered(1, 5), written(place, workload)
    page_choice.choose(folder, first, pages, lambda _: Answered(1, 9), trial, before)
    assert trial.shared_answer.ToNanoseconds() == 9
    assert trial.measured_with == ""


def test_the_last_trial_of_a_function(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """Of another snapshot of the same function on the same host; it says whose it is."""
    store, function = place.builder.store, workload.function_id
    mine, another = f"{function}-r1", f"{function}-r2"
    store.path(SNAPSHOT).rename(store.path(mine))
    assert store.last_trial(function, another) is None
    tried = measured(WRITTEN, snapshot_pb2.PAGE_CHOICE_SHARED)
    store.keep_trial(mine, tried)
    assert store.last_trial(function, another) == tried
    tried.measured_with = ""
    store.keep_trial(mine, tried)
    found = store.last_trial(function, another)
    assert found is not None
    assert found.measured_with == f"snapshots/{SNAPSHOT}"  # as its manifest calls it
    assert store.last_trial(function, mine) is None
    assert store.last_trial(function[:-1], another) is None


def test_a_refused_second_set_leaves_nothing(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """Also when a restore fails."""
    folder = place.builder.store.images(SNAPSHOT)

    def restore(_: str) -> Answered:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        page_choice.choose(
            folder, Answered(1, 2), written(place, workload), restore, snapshot_pb2.Trial()
        )
    assert not (folder / eager.FOLDER).exists()


def test_a_second_set_is_part_of_the_snapshot(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """Restores take it, its sizes count, and damage to it is damage to the snapshot."""
    store = place.builder.store
    before = store.check(SNAPSHOT)
    assert before.images_dir == SNAPSHOT_TARGET
    copied = eager.keep(store.images(SNAPSHOT), written(place, workload))
    store.keep_eager(SNAPSHOT)
    after = store.check(SNAPSHOT)
    assert after.images_dir == eager.TARGET
    assert after.snapshot.eager_bytes == before.snapshot.eager_bytes + copied
    assert after.snapshot.shared_bytes == before.snapshot.shared_bytes - copied
    assert after.snapshot.size_bytes > before.snapshot.size_bytes + copied
    sandbox, _ = place.clone(workload, images_dir=after.images_dir)
    with place.place.client() as client:
        assert get(client)[1] == b"2"
    sandbox.delete()
    pages = next((store.images(SNAPSHOT) / eager.FOLDER).glob("pages-*.img"))
    with pages.open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(DataLoss) as caught:
        store.check(SNAPSHOT)
    assert caught.value.metadata["file"] == f"images/{eager.FOLDER}/{pages.name}"


def test_a_trial_chooses(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """With real restores: both ways were measured, and as many restores are told as were asked."""
    clone_of = instance_pb2.INSTANCE_ROLE_CLONE
    instance = Instance("clone", workload, clone_of, f"snapshots/{SNAPSHOT}", (), 0)
    sandbox, _ = place.create("clone", workload, SNAPSHOT)
    place.place.link("clone0", sandbox.init_pid)
    folder = place.builder.store.images(SNAPSHOT)
    trial = TrialRun(instance, sandbox, choose_in=folder).run()
    assert len(trial.restores) == 10
    assert WRITTEN <= trial.written_bytes < WRITTEN + (3 << 20)
    copied = trial.eager_answer.ToNanoseconds() < 0.95 * trial.shared_answer.ToNanoseconds()
    assert (trial.page_choice == snapshot_pb2.PAGE_CHOICE_EAGER) == copied
    assert (folder / eager.FOLDER).exists() == copied
    assert trial.first_answer.ToNanoseconds() > 0
    assert processes.children(sandbox.init_pid) == []
