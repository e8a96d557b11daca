# SPDX-License-Identifier: Apache-2.0
"""Declares functions, or leads one back, and follows each until it is deployed or has failed."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import errors
from aetherless_cli.client import function_name
from aetherless_cli.plain import milliseconds, to_plain, without_values
from aetherless_cli.reasons import error_of
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aetherless.registry.v1.pipeline_pb2 import PipelineSpec
    from aetherless_cli.client import Mesh
    from aetherless_cli.console import Console
    from aetherless_cli.live import Changes

FIRST_ANSWER = 10.0  # seconds until the stream of changes must have begun
TURN = 0.2
SILENCE = 60.0  # seconds without the registry before a rollout is given up
ENDED = {function_pb2.DEPLOY_STATE_DEPLOYED, function_pb2.DEPLOY_STATE_FAILED}


class Rollout:
    """One declaration, or one rollback, and what follows from it.

    Args:
        mesh: the services.
        changes: the registry's stream of changes, opened before anything is declared.
        console: where each phase is shown.
        alive: tells whether there is still an orchestrator to wait for.
    """

    def __init__(
        self, mesh: Mesh, changes: Changes, console: Console, alive: Callable[[], bool]
    ) -> None:
        self._mesh = mesh
        self._changes = changes
        self._console = console
        self._alive = alive
        # The etag that each function had right after it was declared: later ones are its news.
        self._declared: dict[str, int] = {}
        self._began = time.monotonic()
        self._streaming = False
        self.deployed: dict[str, function_pb2.Function] = {}
        self.failed: dict[str, AetherlessError] = {}

    def declare(
        self,
        specs: Sequence[function_pb2.FunctionSpec],
        pipelines: Sequence[PipelineSpec] = (),
        *,
        prune: bool,
        planned: messages.ApplyConfigResponse | None = None,
    ) -> None:
        """Declare functions and pipelines; ``planned``, only if they are as they were then.

        Raises:
            AetherlessError: the registry refuses them, or does not answer.
        """
        self._wait_for_stream()
        request = messages.ApplyConfigRequest(
            functions=specs,
            pipelines=pipelines,
            prune=prune,
            request_id=str(uuid.uuid4()),
        )
        if planned is not None:
            request.etags.update({each.function_id: each.etag for each in planned.plan})
            request.pipeline_etags.update(
                {each.pipeline_id: each.etag for each in planned.pipeline_plan}
            )
        self._begin(self._mesh.registry.ApplyConfig(request).functions)

    def roll_back(self, function_id: str, revision: int) -> None:
        """Lead a function back to a revision; 0 for the one before.

        Raises:
            AetherlessError: the registry refuses it, or does not answer.
        """
        self._wait_for_stream()
        request = messages.RollbackFunctionRequest(
            name=function_name(function_id), revision=revision, request_id=str(uuid.uuid4())
        )
        self._begin([self._mesh.registry.RollbackFunction(request).function])

    def _begin(self, functions: Iterable[function_pb2.Function]) -> None:
        """Take note of what was declared; what is deployed already is not waited for."""
        self._began = time.monotonic()
        for function in functions:
            self._declared[function.spec.function_id] = int(function.etag)
            if function.deploy_state == function_pb2.DEPLOY_STATE_DEPLOYED:
                self._take(function, f"revision {function.revision} serves already, unchanged")

    def follow(self) -> None:
        """Show phases until every function is deployed or has failed.

        Raises:
            Aborted: TAKEN_DOWN, the orchestrator is gone.
            AetherlessError: the registry stays away.
        """
        heard = time.monotonic()
        while self._waiting():
            response = self._changes.next(TURN)
            if response is not None and not isinstance(response, AetherlessError):
                heard = time.monotonic()
                for event in response.events:
                    self._see(event)
            elif not self._alive():
                raise errors.taken_down()
            elif isinstance(response, AetherlessError) and time.monotonic() - heard > SILENCE:
                raise response

    def _waiting(self) -> bool:
        return any(name not in self.deployed and name not in self.failed for name in self._declared)

    def _wait_for_stream(self) -> None:
        """Wait until changes are told, once: what is told after that may be awaited."""
        deadline = time.monotonic() + FIRST_ANSWER
        while not self._streaming:
            response = self._changes.next(TURN)
            if isinstance(response, AetherlessError) and time.monotonic() > deadline:
                raise response
            self._streaming = response is not None and not isinstance(response, AetherlessError)

    def _see(self, event: messages.FunctionEvent) -> None:
        function = event.function
        name = function.spec.function_id
        if name not in self._declared or name in self.deployed or name in self.failed:
            return
        if event.type == messages.FUNCTION_EVENT_TYPE_PROGRESS:
            self._show_progress(name, event.progress)
        elif event.type == messages.FUNCTION_EVENT_TYPE_DELETED:
            self.failed[name] = errors.taken_down()
        elif int(function.etag) >= self._declared[name] and function.deploy_state in ENDED:
            self._take(function, f"revision {function.revision} serves after {self._so_far()}")

    def _so_far(self) -> str:
        """Return how long it has taken."""
        took = time.monotonic() - self._began
        return f"{took:.1f} s" if took >= 1 else f"{took * 1000:.0f} ms"

    def _take(self, function: function_pb2.Function, how: str) -> None:
        name = function.spec.function_id
        if function.deploy_state == function_pb2.DEPLOY_STATE_FAILED:
            self.failed[name] = _error_of(function)
            mark = self._console.paint("failed", "31;1")
            text = f"{name}: {mark} in {function.deploy_step or 'its deploy'}; {_rest(function)}"
            self._console.line(text, event="failed", function=without_values(function))
            return
        self.deployed[name] = function
        mark = self._console.paint(how, "32")
        text = f"{name}: {mark}: {_where(function.spec)}"
        self._console.line(text, event="deployed", function=without_values(function))

    def _show_progress(self, name: str, progress: function_pb2.DeployProgress) -> None:
        what = f"{progress.step}: {progress.phase}" if progress.phase else progress.step
        if progress.state == function_pb2.PROGRESS_STATE_STARTED:
            self._console.passing(f"{name}: {what} ...")
            return
        took = f"{milliseconds(progress.duration):.0f} ms"
        indent = "    " if progress.phase else "  "
        label = progress.phase or progress.step
        failed = progress.state == function_pb2.PROGRESS_STATE_FAILED
        how = self._console.paint("failed", "31") if failed else took.rjust(8)
        text = f"{name}:{indent}{label.ljust(26 - len(indent))} {how}  {progress.detail}".rstrip()
        self._console.line(text, event="progress", id=name, progress=to_plain(progress))


def _where(spec: function_pb2.FunctionSpec) -> str:
    """Return how a function is called; by its port only where something is known to listen."""
    address = f"http://localhost:{spec.trigger_port}"
    if not spec.ipc:
        return address
    command = f"aetherctl invoke {spec.function_id}"
    listens = spec.trigger_port and spec.warmup_kind != function_pb2.WARMUP_KIND_NONE
    return f"{address}, {command}" if listens else command


def _rest(function: function_pb2.Function) -> str:
    """Return what is there although a deploy failed."""
    serving = function.serving_revision
    return f"revision {serving} goes on serving" if serving else "nothing serves it"


def _error_of(function: function_pb2.Function) -> AetherlessError:
    told: Any = function.deploy_error
    name = function.spec.function_id
    message = told.message or f"{name} can't be deployed"
    if name not in message:
        message = f"{name}: {message}"
    metadata = {"function": name, "step": function.deploy_step, **dict(told.metadata)}
    return error_of(told.domain, told.reason or "INTERNAL", message, metadata)
