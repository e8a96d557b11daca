# SPDX-License-Identifier: Apache-2.0
"""What tests ask a registry, with typed errors and bounded waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from google.protobuf.field_mask_pb2 import FieldMask

from aetherless.registry.v1 import (
    event_pb2,
    function_pb2,
    registry_service_pb2,
    registry_service_pb2_grpc,
)
from aetherless_common.channels import connect
from aetherless_common.errors import AetherlessError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aetherless_common.settings import Settings

WAIT_S = 20.0
DEPLOYED = function_pb2.DEPLOY_STATE_DEPLOYED
FAILED = function_pb2.DEPLOY_STATE_FAILED


def wait_until(met: Callable[[], Any], what: str = "it") -> Any:
    """Wait until something is true, and return it."""
    ends_at = time.monotonic() + WAIT_S
    while time.monotonic() < ends_at:
        found = met()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


class RegistryClient:
    """A registry's client.

    Args:
        settings: where its socket is.
    """

    def __init__(self, settings: Settings) -> None:
        self.channel = connect(settings, "registry")
        self.stub = registry_service_pb2_grpc.RegistryServiceStub(self.channel)
        self.watches: list[Watch] = []

    def close(self) -> None:
        """Close the channel and the watches."""
        for watch in self.watches:
            watch.stream.cancel()
        self.channel.close()

    def apply(
        self, *specs: function_pb2.FunctionSpec, **fields: Any
    ) -> registry_service_pb2.ApplyConfigResponse:
        """Declare functions; further fields of the request by name."""
        request = registry_service_pb2.ApplyConfigRequest(functions=specs, **fields)
        return self.stub.ApplyConfig(request, wait_for_ready=True)

    def update(
        self, spec: function_pb2.FunctionSpec, *paths: str, etag: str = "", **fields: Any
    ) -> registry_service_pb2.UpdateFunctionResponse:
        """Change hello; ``paths`` are the mask's, further fields the request's."""
        function = function_pb2.Function(name="functions/hello", spec=spec, etag=etag)
        mask = FieldMask(paths=paths)
        request = registry_service_pb2.UpdateFunctionRequest(
            function=function, update_mask=mask, **fields
        )
        return self.stub.UpdateFunction(request)

    def roll_back(self, function_id: str = "hello", **fields: Any) -> function_pb2.Function:
        """Lead a function back; further fields of the request by name."""
        request = registry_service_pb2.RollbackFunctionRequest(
            name=f"functions/{function_id}", **fields
        )
        return self.stub.RollbackFunction(request, wait_for_ready=True).function

    def check(
        self, spec: function_pb2.FunctionSpec, restores: int = 0
    ) -> Iterator[registry_service_pb2.CheckHandlerResponse]:
        """Check a program; gives what is told of it."""
        request = registry_service_pb2.CheckHandlerRequest(spec=spec, restores=restores)
        return self.stub.CheckHandler(request, wait_for_ready=True)

    def get(self, function_id: str = "hello") -> function_pb2.Function:
        """Return a function."""
        request = registry_service_pb2.GetFunctionRequest(name=f"functions/{function_id}")
        return self.stub.GetFunction(request, wait_for_ready=True).function

    def list(self, **fields: Any) -> registry_service_pb2.ListFunctionsResponse:
        """List functions."""
        return self.stub.ListFunctions(registry_service_pb2.ListFunctionsRequest(**fields))

    def delete(self, function_id: str = "hello", etag: str = "") -> int:
        """Delete a function."""
        request = registry_service_pb2.DeleteFunctionRequest(
            name=f"functions/{function_id}", etag=etag
        )
        return self.stub.DeleteFunction(request, wait_for_ready=True).revision

    def evict(self, function_id: str = "hello") -> function_pb2.Function:
        """Evict a function."""
        request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{function_id}")
        return self.stub.EvictFunction(request).function

    def wake(self, function_id: str = "hello") -> function_pb2.Function:
        """Wake a function."""
        request = registry_service_pb2.WakeFunctionRequest(name=f"functions/{function_id}")
        return self.stub.WakeFunction(request).function

    def events(self, **fields: Any) -> Sequence[event_pb2.Event]:
        """Return the events of one page."""
        request = registry_service_pb2.ListEventsRequest(**fields)
        return self.stub.ListEvents(request, wait_for_ready=True).events

    def reasons(self, **fields: Any) -> Sequence[str]:
        """Return the reasons of the events of one page."""
        return [each.reason for each in self.events(**fields)]

    def watch(self, **fields: Any) -> Watch:
        """Watch functions; the first response is read."""
        request = registry_service_pb2.WatchFunctionsRequest(**fields)
        watch = Watch(self.stub.WatchFunctions(request))
        self.watches.append(watch)
        return watch

    def deployed(self, function_id: str = "hello", revision: int = 1) -> function_pb2.Function:
        """Wait until a revision serves, and return the function."""

        def met() -> function_pb2.Function | None:
            function = self.get(function_id)
            done = function.deploy_state == DEPLOYED and function.serving_revision == revision
            return function if done else None

        found: function_pb2.Function = wait_until(met, f"{function_id} r{revision}")
        return found

    def failed(self, function_id: str = "hello") -> function_pb2.Function:
        """Wait until a deploy failed, and return the function."""

        def met() -> function_pb2.Function | None:
            function = self.get(function_id)
            return function if function.deploy_state == FAILED else None

        found: function_pb2.Function = wait_until(met, f"{function_id} to fail")
        return found

    def gone(self, function_id: str = "hello") -> None:
        """Wait until a function is gone."""

        def met() -> bool:
            try:
                self.get(function_id)
            except NotFound:
                return True
            return False

        wait_until(met, f"{function_id} to go")


class Watch:
    """A watch that is read in the background."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.responses: list[registry_service_pb2.WatchFunctionsResponse] = [next(stream)]
        self.error: AetherlessError | None = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.cancel()

    def _read(self) -> None:
        """Keep what comes."""
        try:
            self.responses.extend(self.stream)
        except AetherlessError as error:
            self.error = error

    @property
    def events(self) -> Sequence[registry_service_pb2.FunctionEvent]:
        """Return the events so far."""
        return [event for response in list(self.responses) for event in response.events]

    def of(self, kind: str) -> list[registry_service_pb2.FunctionEvent]:
        """Return the events of a kind so far."""
        number = registry_service_pb2.FunctionEventType.Value(f"FUNCTION_EVENT_TYPE_{kind}")
        return [event for event in self.events if event.type == number]

    def first(self, kind: str) -> registry_service_pb2.FunctionEvent:
        """Wait for an event of a kind, and return the first."""
        found: registry_service_pb2.FunctionEvent = wait_until(lambda: self.of(kind), kind)[0]
        return found
