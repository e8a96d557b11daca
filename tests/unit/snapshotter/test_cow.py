# SPDX-License-Identifier: Apache-2.0
"""Converted snapshots: every byte of every process's memory is what it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aetherless_snapshotter import eager, files, processes
from aetherless_snapshotter.manifest import IMAGES
from aetherless_snapshotter.pagemap import PAGE
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET
from framework import memory
from framework.programs import handler
from framework.sandbox_world import SNAPSHOT, evict, get, sandbox_world
from framework.snapshotter_world import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.cow_plan import Interval
    from aetherless_snapshotter.sandbox import Sandbox
    from framework.sandbox_world import SandboxWorld

    MakeWorkload = Callable[..., instance_pb2.Workload]
    Memory = dict[int, dict[memory.Area, str]]

pytestmark = pytest.mark.root

Step = list[object]
pages = st.integers(1, 400)
percent = st.sampled_from([0, 5, 50, 100])
which = st.integers(0, 20)
#: none, read, read and write, read and execute
protection = st.sampled_from([0, 1, 3, 5])
#: none, DONTFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, WIPEONFORK
advice = st.sampled_from([0, 10, 14, 15, 16, 18])


def step(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    """Return a strategy of steps of one kind."""
    return st.tuples(st.just(name), *arguments).map(list)


simple = st.one_of(
    step("anonymous", pages, percent, protection, advice),
    step("anonymous", pages, percent, st.just(3), st.just(0)),
    step("reserve", st.sampled_from([8, 64, 1024]), st.integers(1, 200), percent),
    step("shared", st.integers(1, 50), percent),
    step("private_file", pages, percent, st.sampled_from(["kept", "deleted"])),
    step("shared_file", st.integers(1, 50), percent),
    step("memfd", st.integers(1, 50), percent),
    step("growing", st.integers(1, 20)),
    step("locked", st.integers(1, 20)),
    step("heap", pages, percent),
    step("code", st.integers(0, 0xFFFF)),
)
later = st.one_of(
    step("touch", which, percent),
    step("hole", which, st.sampled_from(["unmap", "protect", "empty"])),
)
inherited = st.lists(st.one_of(simple, later, later), min_size=1, max_size=5)


def children(of: st.SearchStrategy[list[Step]], most: int) -> st.SearchStrategy[list[Step]]:
    """Return a strategy of children that inherit, and do steps of ``of``."""
    return st.lists(step("fork", of), max_size=most)


def joined(*parts: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[list[Step]]:
    """Return a strategy of one list after the other."""
    return st.tuples(*parts).map(lambda drawn: list(chain.from_iterable(drawn)))


#: Not a byte of it is trivial: each has memory that moves, and memory that stays.
first: list[Step] = [["anonymous", 30, 100, 3, 0], ["growing", 2]]
layouts = joined(
    st.just(first),
    st.lists(st.one_of(simple, simple, later), min_size=4, max_size=10),
    children(joined(inherited, children(inherited, 1)), 2),
    inherited,
)


def tree(sandbox: Sandbox) -> Memory:
    """Return the memory of all processes of a sandbox's program, by their ids inside."""
    found = processes.tree(sandbox.init_pid)
    next(found)
    inner = {pid: processes.inner_pid(pid) for pid in found}
    return {inner[pid]: memory.contents(pid) for pid in inner if inner[pid] >= 10000}


def differences(before: Memory, after: Memory) -> list[str]:
    """Return how two memories differ, for a reader."""
    found = [f"processes {sorted(before)} {sorted(after)}"] if before.keys() != after.keys() else []
    for pid in before.keys() & after.keys():
        for area in sorted(before[pid].keys() | after[pid].keys(), key=lambda one: one.start):
            then, now = before[pid].get(area), after[pid].get(area)
            if then != now:
                found.append(f"{pid} {area.start:x}-{area.end:x} {area} {then} {now}")
    return found


def workload(make: MakeWorkload, layout: list[Step], seed: int = 0) -> instance_pb2.Workload:
    """Return the program with a layout."""
    # the kernel writes its restartable sequences' area at each switch
    environment = {
        "LAYOUT": json.dumps(layout),
        "SEED": str(seed),
        "GLIBC_TUNABLES": "glibc.pthread.rseq=0",
    }
    return make(
        handler_path=str(handler("layout")),
        root_path=str(handler("layout").parent),
        memory_limit_bytes=1 << 30,
        environment=environment,
    )


def ask(place: SandboxWorld, path: str) -> list[str]:
    """Ask the clone."""
    with place.place.client() as client:
        status, body, _ = get(client, path)
    assert status == 200
    answer: list[str] = json.loads(body)
    return answer


def restored(
    place: SandboxWorld, made: instance_pb2.Workload, images_dir: str, before: Memory
) -> dict[int, list[Interval]]:
    """Restore twice, compare with what was, overwrite it all; returns what was then written."""
    told = json.loads(place.builder.logs.since("hello", 0, 1 << 20).splitlines()[-1])
    sandbox, _ = place.clone(made, images_dir=images_dir)
    try:
        for _ in range(2):
            wake = sandbox.wake()
            assert wake is not None
            assert wake.ok
            assert differences(before, tree(sandbox)) == []
            assert ask(place, "/digest") == told
            ask(place, "/scribble")
            written = eager.written(processes.host_pid(sandbox.init_pid, wake.root_pid))
            evict(sandbox)
        return written
    finally:
        sandbox.delete()


def round_trip(place: SandboxWorld, made: instance_pb2.Workload) -> None:
    """Dump and restore a program, with its pages shared, and with the written ones copied."""
    before: Memory = {}

    def after(phase: str, golden: Sandbox) -> None:
        if phase == "dump":
            before.update(tree(golden))

    place.checkpoint(made, after)
    written = restored(place, made, SNAPSHOT_TARGET, before)
    copied = eager.keep(place.builder.store.images(SNAPSHOT), written)
    assert copied > 0
    restored(place, made, eager.TARGET, before)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a second
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(layout=layouts, seed=st.integers(0, 1000))
def test_random_layouts_come_back(
    make_workload: MakeWorkload, layout: list[Step], seed: int
) -> None:
    """Areas and bytes are what they were, as the kernel and as the programs see them, twice."""
    with tempfile.TemporaryDirectory() as folder, sandbox_world(Path(folder)) as place:
        round_trip(place, workload(make_workload, layout, seed))


WORKER: list[Step] = [
    ["touch", 0, 5],
    ["heap", 60, 100],
    ["touch", 2, 50],
    ["anonymous", 9, 9, 3, 0],
]
PREFORK: list[Step] = [
    ["anonymous", 4000, 100, 3, 0],
    ["private_file", 300, 50, "kept"],
    ["shared", 20, 50],
    ["heap", 500, 90],
    ["code", 77],
    ["fork", WORKER],
    ["fork", WORKER],
    ["fork", WORKER],
    ["fork", WORKER],
    ["touch", 0, 1],
]
EVERYTHING: list[Step] = [
    ["reserve", 262144, 300, 60],
    ["anonymous", 300, 50, 0, 0],
    ["anonymous", 300, 50, 5, 10],
    ["anonymous", 300, 50, 3, 18],
    ["private_file", 300, 100, "deleted"],
    ["shared_file", 20, 50],
    ["memfd", 20, 50],
    ["locked", 5],
    ["hole", 1, "unmap"],
    ["hole", 4, "protect"],
    ["hole", 4, "empty"],
    ["fork", [["touch", 4, 50], ["code", 3], ["fork", [["touch", 4, 100]]]]],
]


@pytest.mark.parametrize("layout", [PREFORK, EVERYTHING], ids=["prefork", "everything"])
def test_a_layout_comes_back(
    tmp_path: Path, make_workload: MakeWorkload, layout: list[Step]
) -> None:
    """Workers that share their master's memory; and one of each kind of area."""
    with sandbox_world(tmp_path) as place:
        round_trip(place, workload(make_workload, layout))


def test_what_counts_on_zeros_gets_them(tmp_path: Path, make_workload: MakeWorkload) -> None:
    """Anonymous memory of a program with jemalloc stays anonymous: emptied, it reads as zeros."""
    layout: list[Step] = [
        ["program", "<jemalloc>: Error"],
        *first,
        ["private_file", 50, 100, "kept"],
    ]
    made = workload(make_workload, layout)
    with sandbox_world(tmp_path) as place:
        round_trip(place, made)
        snapshot = place.builder.store.check(SNAPSHOT).snapshot
        assert snapshot.eager_bytes > snapshot.shared_bytes > 50 * PAGE
        sandbox, _ = place.clone(made)
        assert ask(place, "/release") == ["[0]"]
        sandbox.delete()


MEASURE = """
import pathlib, resource, sys
from aetherless_snapshotter import cow, images
images.load_modules(pathlib.Path(sys.argv[1]))
images.process_tree(pathlib.Path(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = cow.convert(pathlib.Path(sys.argv[2]))
print(done.shared_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_heap_of_a_gigabyte_costs_a_few_megabytes(
    tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """The pages go from file to file, and their space is given back on the way."""
    made = workload(make_workload, [*first, ["anonymous", (1 << 30) // PAGE, 97, 3, 0]])
    made.memory_limit_bytes = 2 << 30
    made.timeout.FromSeconds(120)
    with sandbox_world(tmp_path) as place:
        staging = place.builder.store.staging(SNAPSHOT) / IMAGES
        copy = place.place.settings.snapshot_dir / "copy"

        def after(phase: str, _: Sandbox) -> None:
            if phase == "images":
                shutil.copytree(staging, copy)

        place.checkpoint(made, after)
        output = subprocess.run(
            [sys.executable, "-c", MEASURE, place.place.settings.prefix, copy],
            check=True,
            capture_output=True,
            timeout=WAIT,
        ).stdout
        shared, grown_kib = map(int, output.split())
        assert shared > 900 << 20
        assert grown_kib < 8 << 10
        assert sum(files.disk_size(file) for file in copy.iterdir()) < shared + (8 << 20)
        files.remove_tree(copy)
        sandbox, _ = place.clone(made)
        wake = sandbox.wake()
        assert wake is not None
        assert wake.ok
        told = json.loads(place.builder.logs.since("hello", 0, 1 << 20).splitlines()[-1])
        assert ask(place, "/digest") == told
        sandbox.delete()
