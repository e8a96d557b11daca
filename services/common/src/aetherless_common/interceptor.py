# SPDX-License-Identifier: Apache-2.0
"""The one server interceptor: errors to status, deadlines, a log line and a span per call."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import structlog

from aetherless_common import callcontext, errors, rpcspan, status, tracing
from aetherless_common.serviceconfig import method_timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger()
# A client without a deadline: gRPC reports centuries on some versions, None on others.
FOREVER_S = 10 * 365 * 86400.0
# What is polled, or comes with each call of a function.
FREQUENT = ("Get", "List", "Invoke", "Touch")


class ServiceInterceptor(grpc.ServerInterceptor):
    """Stands around every handler of one service's own RPCs.

    Health checks and reflection pass by: they come with gRPC and speak its codes themselves.

    Args:
        service: ``registry``, ``snapshotter``, ``netplane`` or ``ipc``.
    """

    def __init__(self, service: str) -> None:
        self._domain = f"{service}.aetherless"
        self._prefix = f"/aetherless.{service}."
        self._timeouts = method_timeouts(service)
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler with our wrapping around it, made at the method's first call."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrap(continuation(handler_call_details), method)
            if wrapped is not None:
                self._wrapped[method] = wrapped
        return wrapped

    def _wrap(
        self, handler: grpc.RpcMethodHandler[Any, Any] | None, method: str
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return a handler with our wrapping around it; others' as they are."""
        if handler is None or not method.startswith(self._prefix):
            return handler
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            streams = self._streaming(handler.unary_stream or handler.stream_stream, method)
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(streams, *codecs)
        answers = self._unary(handler.unary_unary or handler.stream_unary, method)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(answers, *codecs)
        return grpc.unary_unary_rpc_method_handler(answers, *codecs)

    def _unary(self, behavior: Any, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Wrap a handler that returns one answer."""
        known = self._known(method)

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            call = _Call(known, context, known.default_s)
            try:
                response = behavior(request, context)
            except Exception as error:  # noqa: BLE001  # every error becomes a status, here only
                failure = call.failed(error)
            else:
                call.done()
                return response
            finally:
                call.end()
            return status.abort(context, failure, self._domain)

        return handle

    def _streaming(self, behavior: Any, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Wrap a handler that returns a stream of answers."""
        known = self._known(method)

        def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            call = _Call(known, context, None)
            try:
                yield from behavior(request, context)
            except Exception as error:  # noqa: BLE001  # every error becomes a status, here only
                failure = call.failed(error)
            else:
                call.done()
                return
            finally:
                call.end()  # also when the client went away
            status.abort(context, failure, self._domain)

        return handle

    def _known(self, method: str) -> _Method:
        """Return what is the same for all calls of an RPC."""
        name = method.rpartition("/")[2]
        say = log.debug if name.startswith(FREQUENT) else log.info
        silent = name.startswith(FREQUENT) and not log.is_enabled_for(logging.DEBUG)
        return _Method(method, name, self._timeouts.get(name), None if silent else say)


class _Method(NamedTuple):
    """What is the same for all calls of an RPC.

    Args:
        path: gRPC's path of it.
        name: its name.
        default_s: the deadline for a client that set none.
        say: writes the log line of a call that was answered; None when it would write nothing.
    """

    path: str
    name: str
    default_s: float | None
    say: Callable[..., Any] | None


class _Call:
    """One call being served: its context for the handler, its log line and its span.

    Args:
        method: the RPC.
        context: gRPC's context of the call.
        default_s: the deadline for a client that set none; None for streams.
    """

    def __init__(
        self, method: _Method, context: grpc.ServicerContext, default_s: float | None
    ) -> None:
        left: float | None = context.time_remaining()
        unlimited = left is None or left > FOREVER_S
        callcontext.begin(default_s if unlimited else left)
        self._span = rpcspan.begin_served(method.path, context)
        tracing.make_current(self._span)
        self._begun = time.monotonic()
        self._method = method
        self._default_s = default_s if unlimited else None

    def done(self) -> None:
        """Log a call that was answered; those that come often are debug lines."""
        if self._method.say is not None:
            self._method.say("served", code="OK", ms=self._elapsed_ms(), **self._said())
        rpcspan.answered(self._span)

    def failed(self, error: Exception) -> errors.AetherlessError:
        """Log a call that failed; return the error that the client gets."""
        ms = self._elapsed_ms()
        if isinstance(error, errors.AetherlessError) and not isinstance(error, errors.Internal):
            fields = {"reason": error.reason, "error": error.message, **error.metadata}
            log.warning("refused", code=error.code, ms=ms, details=fields, **self._said())
            rpcspan.failed(self._span, error)
            return error
        log.error("failed", code="INTERNAL", ms=ms, exc_info=error, **self._said())
        rpcspan.failed(self._span, error)
        return error if isinstance(error, errors.AetherlessError) else errors.internal()

    def end(self) -> None:
        """Leave the thread to its next call."""
        self._span.end()
        tracing.make_current(tracing.NOBODY)

    def _said(self) -> dict[str, object]:
        """Return what each line about the call says."""
        said: dict[str, object] = {"rpc": self._method.name}
        if self._default_s is not None:
            said["default_deadline_s"] = self._default_s
        return said

    def _elapsed_ms(self) -> float:
        """Return how long the call took so far, in milliseconds."""
        return round((time.monotonic() - self._begun) * 1000, 3)
