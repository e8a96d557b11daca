# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002  # RPCs are named by the contract, and gRPC gives each a context
"""The RPCs: decode, one call of the domain, encode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aetherless.registry.v1 import registry_service_pb2
from aetherless_common.pagination import paginate
from aetherless_registry import errors
from aetherless_registry.event_rpcs import EventRpcs
from aetherless_registry.resources import function_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from aetherless_common.watch import Subscription
    from aetherless_registry.catalog import Catalog, News
    from aetherless_registry.checks import Checks
    from aetherless_registry.declarations import Declarations
    from aetherless_registry.events import EventLog
    from aetherless_registry.operations import Operations

WATCH_QUEUE = 1024
PROGRESS_MARK_S = 10.0
# Events in one response to a watcher that catches up.
BATCH = 100


class RegistryServicer(EventRpcs):
    """Serves ``aetherless.registry.v1``.

    Args:
        catalog: the functions.
        declarations: changes what is declared.
        operations: what can be done to one that is deployed.
        checks: tries what might be declared.
        events: what happened to them.
        mark_s: how often a watcher that asked for it is told where it is, in seconds.
        watch_queue: how many events may wait for a watcher.
    """

    def __init__(
        self,
        catalog: Catalog,
        declarations: Declarations,
        operations: Operations,
        checks: Checks,
        events: EventLog,
        mark_s: float = PROGRESS_MARK_S,
        watch_queue: int = WATCH_QUEUE,
    ) -> None:
        super().__init__(events, mark_s, watch_queue)
        self._catalog = catalog
        self._declarations = declarations
        self._operations = operations
        self._checks = checks
        self._mark_s = mark_s
        self._watch_queue = watch_queue

    def ApplyConfig(
        self,
        request: registry_service_pb2.ApplyConfigRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.ApplyConfigResponse:
        """Declare functions."""
        return self._declarations.apply(request)

    def GetFunction(
        self,
        request: registry_service_pb2.GetFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.GetFunctionResponse:
        """Return one function."""
        record = self._catalog.get(function_id_of(request.name))
        return registry_service_pb2.GetFunctionResponse(function=self._catalog.message(record))

    def ListFunctions(
        self,
        request: registry_service_pb2.ListFunctionsRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.ListFunctionsResponse:
        """List functions."""
        records, revision = self._catalog.records()
        page, token = paginate(
            records, lambda each: each.function_id, request.page_size, request.page_token
        )
        return registry_service_pb2.ListFunctionsResponse(
            functions=[self._catalog.message(record) for record in page],
            next_page_token=token,
            revision=revision,
        )

    def DeleteFunction(
        self,
        request: registry_service_pb2.DeleteFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.DeleteFunctionResponse:
        """Store the wish that a function be gone."""
        revision = self._declarations.delete(function_id_of(request.name), request.etag)
        return registry_service_pb2.DeleteFunctionResponse(revision=revision)

    def UpdateFunction(
        self,
        request: registry_service_pb2.UpdateFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.UpdateFunctionResponse:
        """Change parts of what is declared of a function."""
        return self._declarations.update(request)

    def RollbackFunction(
        self,
        request: registry_service_pb2.RollbackFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.RollbackFunctionResponse:
        """Lead a function back to a revision that is kept."""
        return self._declarations.roll_back(request)

    def WatchFunctions(
        self,
        request: registry_service_pb2.WatchFunctionsRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[registry_service_pb2.WatchFunctionsResponse]:
        """Stream what happens from a revision on."""
        if request.start_revision < 0:
            raise errors.invalid_argument("start_revision", "must not be negative")
        wanted = function_id_of(request.name) if request.name else ""
        subscription, past, revision = self._catalog.watch(
            request.start_revision, self._watch_queue
        )
        with subscription:
            context.add_callback(subscription.close)
            yield from _caught_up(request, wanted, past, revision)
            yield from self._live(request, wanted, subscription, revision)

    def EvictFunction(
        self,
        request: registry_service_pb2.EvictFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.EvictFunctionResponse:
        """End the running instances of a function."""
        record = self._operations.evict(function_id_of(request.name))
        return registry_service_pb2.EvictFunctionResponse(function=self._catalog.message(record))

    def WakeFunction(
        self,
        request: registry_service_pb2.WakeFunctionRequest,
        context: grpc.ServicerContext,
    ) -> registry_service_pb2.WakeFunctionResponse:
        """Restore an instance of a function."""
        record = self._operations.wake(function_id_of(request.name))
        return registry_service_pb2.WakeFunctionResponse(function=self._catalog.message(record))

    def CheckHandler(
        self,
        request: registry_service_pb2.CheckHandlerRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[registry_service_pb2.CheckHandlerResponse]:
        """Try a program, and leave nothing of it."""
        check = self._checks.begin(request)
        context.add_callback(check.cancel)
        yield from self._checks.run(check)

    def _live(
        self,
        request: registry_service_pb2.WatchFunctionsRequest,
        wanted: str,
        subscription: Subscription[News],
        revision: int,
    ) -> Iterator[registry_service_pb2.WatchFunctionsResponse]:
        """Yield news as they come, and marks when they do not."""
        mark_at = time.monotonic() + self._mark_s
        while True:
            left = max(0.0, mark_at - time.monotonic()) if request.progress_notify else None
            news = subscription.get(left)
            if news is None and subscription.closed:
                return
            if news is None:
                yield registry_service_pb2.WatchFunctionsResponse(revision=revision)
                mark_at = time.monotonic() + self._mark_s
                continue
            revision = max(revision, news.revision)
            if _is_wanted(news, wanted, request.start_revision):
                yield registry_service_pb2.WatchFunctionsResponse(
                    revision=revision, events=[news.event]
                )


def _caught_up(
    request: registry_service_pb2.WatchFunctionsRequest,
    wanted: str,
    past: list[News],
    revision: int,
) -> Iterator[registry_service_pb2.WatchFunctionsResponse]:
    """Yield what happened before the watch began; at least one response, so that it is known."""
    news = [each for each in past if _is_wanted(each, wanted, request.start_revision)]
    for start in range(0, max(len(news), 1), BATCH):
        batch = news[start : start + BATCH]
        last = start + BATCH >= len(news)
        # Only the last response may say that everything up to the present revision was told.
        at = revision if last or not request.start_revision else batch[-1].revision
        yield registry_service_pb2.WatchFunctionsResponse(
            revision=at, events=[each.event for each in batch]
        )


def _is_wanted(news: News, wanted: str, start_revision: int) -> bool:
    """Tell whether a watcher asked for this."""
    too_old = news.revisioned and news.revision < start_revision
    return not too_old and wanted in {"", news.function_id}
