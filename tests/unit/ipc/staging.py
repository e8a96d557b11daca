# SPDX-License-Identifier: Apache-2.0
"""Pipelines of a test's own: real stages in control groups, killed and started again."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import pipeline_pb2
from aetherless.snapshotter.v1 import (
    instance_pb2,
    snapshotter_service_pb2,
    snapshotter_service_pb2_grpc,
)
from aetherless_common.errors import AetherlessError
from framework.processes import wait_until

from .asking import admit, create

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

ONCE, AT_LEAST = pipeline_pb2.DELIVERY_AT_MOST_ONCE, pipeline_pb2.DELIVERY_AT_LEAST_ONCE
CHAIN = {"a": "", "b": "a", "c": "b"}
DIAMOND = {"a": "", "b": "a", "c": "a", "d": "c b"}
LIMIT_S = 30.0
#: How many runs go at once while stages are killed.
RUNS = 100


def declared(
    stages: dict[str, str], name: str = "p", delivery: Any = AT_LEAST, **methods: str
) -> pipeline_pb2.Pipeline:
    """Return a pipeline whose stages have their functions' ids."""
    made = pipeline_pb2.Pipeline(name=f"pipelines/{name}", delivery=delivery)
    made.timeout.FromSeconds(int(LIMIT_S))
    for stage, sources in stages.items():
        added = made.stages.add(stage_id=stage, function_id=stage, method=methods.get(stage, ""))
        getattr(added, "from").extend(sources.split())
    return made


class Stages(snapshotter_service_pb2_grpc.SnapshotterServiceServicer):
    """The functions of a pipeline, each with one instance whose process can be started anew.

    It is the snapshotter as well: to wake an instance is to start its process.
    """

    def __init__(self, stub: IpcServiceStub, make: Any, home: Path, threads: int = 1) -> None:
        self.stub = stub
        self._lock = threading.RLock()
        self._revisions: dict[str, int] = {}
        self.wakes = 0
        self._make = make
        self._home = home
        self._threads = threads
        self.book = home / "book"
        self.paths: dict[str, str] = {}
        self.peers: dict[str, Any] = {}

    def admit(self, name: str, revision: int = 1) -> None:
        """Make a function's channel, and lead its calls to an instance."""
        create(self.stub, name, name)
        instance = f"{name}-r{revision}-0"
        with self._lock:  # a wake meanwhile is for the new instance, and for its path
            self._revisions[name] = revision
            self.paths[name] = admit(self.stub, self._home / instance, instance, name)

    def wake(self, name: str) -> None:
        """Start the process of a stage, unless it runs."""
        with self._lock:
            instance = f"{name}-r{self._revisions[name]}-0"
            if instance in self.peers and self.peers[instance].child.poll() is None:
                return
            self.wakes += 1
            arguments = (name, str(self._threads), str(self.book))
            self.peers[instance] = self._make(
                self.paths[name], "stage", *arguments, instance=instance
            )

    def WakeInstance(self, request: Any, _: Any) -> Any:  # noqa: N802  # the contract's name
        """Start the process of an instance."""
        self.wake(request.name.removeprefix("instances/").partition("-r")[0])
        instance = instance_pb2.Instance(name=request.name)
        return snapshotter_service_pb2.WakeInstanceResponse(instance=instance)

    def TouchInstance(self, _: Any, __: Any) -> Any:  # noqa: N802  # the contract's name
        """Do nothing: nobody falls asleep."""
        return snapshotter_service_pb2.TouchInstanceResponse()

    def register(self, server: Any) -> None:
        """See aetherless_common.server.Service."""
        snapshotter_service_pb2_grpc.add_SnapshotterServiceServicer_to_server(self, server)

    def begin(self) -> None:
        """See aetherless_common.server.Service."""

    start = stop = begin

    def up(self, stages: dict[str, str], **fields: Any) -> None:
        """Declare a pipeline and start its stages."""
        for name in stages:
            self.admit(name)
        pipeline = declared(stages, **fields)
        self.stub.CreatePipeline(
            pb.CreatePipelineRequest(pipeline_id=pipeline.name.partition("/")[2], pipeline=pipeline)
        )
        for name in stages:
            self.wake(name)
        self.wait_attached()

    def wait_attached(self) -> None:
        """Wait until every stage is stood for."""
        wait_until(lambda: all(each.attached for each in self.get().stages), "stages attach")

    def pid(self, name: str) -> int:
        """Return the process of a stage."""
        return int(self.peers[f"{name}-r{self._revisions[name]}-0"].child.pid)

    def kill(self, name: str) -> None:
        """Kill the process of a stage."""
        child = self.peers[f"{name}-r{self._revisions[name]}-0"].child
        child.kill()
        child.wait(LIMIT_S)

    def let_go(self) -> None:
        """End what stages hold up."""
        (self._home / "let-go").touch()

    def get(self, name: str = "p") -> pipeline_pb2.Pipeline:
        """Return the pipeline."""
        return self.stub.GetPipeline(pb.GetPipelineRequest(name=f"pipelines/{name}")).pipeline

    def run(self, data: str = "x", timeout_s: float = LIMIT_S, name: str = "p") -> str:
        """Run a pipeline once; return the words.

        Raises:
            AetherlessError: it failed.
        """
        request = pb.InvokeRequest(
            pipeline=f"pipelines/{name}", data=data.encode(), wait_for_room=True
        )
        request.timeout.FromMilliseconds(round(timeout_s * 1000))
        return self.stub.Invoke(request).data.decode()

    def outcome(self, data: str) -> str:
        """Run the pipeline once; return the words, or the reason that it failed for."""
        try:
            return self.run(data)
        except AetherlessError as error:
            return error.reason

    def burst(self, numbers: range, workers: int = 8) -> list[str]:
        """Run it many times at once with different words; return what came of each."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(self.outcome, [f"x{number}" for number in numbers]))

    def burst_under_kills(self, names: list[str]) -> list[str]:
        """Run it many times while its stages are killed, a few times each; return what came."""
        killer, answers = Killer(self, names), list[str]()
        killer.start()
        while killer.is_alive() and killer.kills < 2 * len(names):
            answers += self.burst(range(len(answers), len(answers) + RUNS))
        killer.stop()
        assert killer.kills >= 2 * len(names)
        return answers

    def executions(self) -> Counter[tuple[str, str]]:
        """Return how often each stage worked on each run."""
        lines = self.book.read_text().splitlines() if self.book.exists() else []
        return Counter((name, run) for name, run, _ in map(str.split, lines))


class Killer(threading.Thread):
    """Kills the stages one after the other, each a little later; who needs one wakes it."""

    def __init__(self, stages: Stages, names: list[str]) -> None:
        super().__init__(daemon=True)
        self._stages = stages
        self._names = names
        self._enough = threading.Event()
        self.kills = 0

    def run(self) -> None:
        """Kill until it is enough."""
        while not self._enough.wait(0.15 + 0.05 * (self.kills % 7)):
            self._stages.kill(self._names[self.kills % len(self._names)])
            self.kills += 1

    def stop(self) -> None:
        """Let it be enough."""
        self._enough.set()
        self.join(LIMIT_S)
