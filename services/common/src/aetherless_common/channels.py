# SPDX-License-Identifier: Apache-2.0
"""Channels to the services: deadlines and retries by their config, typed errors out."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aetherless_common import callcontext, rpcspan, tracing
from aetherless_common.errors import peer_unreachable
from aetherless_common.serviceconfig import full_service_name, method_timeouts, retry_config
from aetherless_common.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.settings import Settings

# A service that comes back is to be found at once, not after gRPC's default of up to two minutes.
# "min_reconnect_backoff" is not about pauses: it is how long a connection may take to be made, and
# on a busy host a service needs more than gRPC's least, 100 ms, for its first words.
# Errors travel in metadata, of which gRPC takes no more than 8 KiB by default.
# A message carries what a record of a ring does, 16 MiB, and what is around it.
MESSAGES = (("grpc.max_receive_message_length", 20 << 20),)
OPTIONS = (
    *MESSAGES,
    ("grpc.max_metadata_size", 256 << 10),
    ("grpc.absolute_max_metadata_size", 512 << 10),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


def connect(settings: Settings, service: str) -> grpc.Channel:
    """Return a channel to a service of this orchestrator, for the service's generated stub.

    Calls through it raise ``AetherlessError`` instead of grpc.RpcError: what the service answered,
    PEER_UNREACHABLE, or PEER_TIMEOUT. Inside a handler they also keep to the time that is left to
    the call being served. Each is a span within the current one, and carries its context. Connects
    at the first call.
    """
    options = (("grpc.service_config", retry_config(service)), *OPTIONS)
    channel = grpc.insecure_channel(f"unix:{settings.socket_path(service)}", options)
    return grpc.intercept_channel(channel, _Typed(service))


def is_serving(settings: Settings, service: str, timeout: float) -> bool:
    """Tell whether a service says SERVING, waiting up to ``timeout`` seconds for its socket.

    Raises:
        AetherlessError: it does not answer (PEER_UNREACHABLE, PEER_TIMEOUT).
    """
    with connect(settings, service) as channel:
        return serves(channel, service, timeout)


def serves(channel: grpc.Channel, service: str, timeout: float) -> bool:
    """Tell whether a service says SERVING on a channel of ``connect``; as ``is_serving``."""
    request = health_pb2.HealthCheckRequest(service=full_service_name(service))
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(request, timeout=timeout, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class _Details(NamedTuple):
    """The details of a call; gRPC reads the attributes of grpc.ClientCallDetails from it."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Typed(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Turns each failed call into a typed error, records it, and hands the call context on.

    Args:
        service: the service at the other end.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._timeouts = method_timeouts(service)

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Make the call; wait for its end, unless it was begun by ``future``."""
        method = client_call_details.method.rpartition("/")[2]
        span = rpcspan.begin_call(client_call_details.method)
        details = _handed_on(client_call_details, self._timeouts.get(method), span)
        try:
            outcome = continuation(details, request)
        except BaseException as error:
            rpcspan.failed(span, error)
            raise
        call = TypedCall(outcome, self._service, method, span)
        if not outcome.done():
            return call
        call.result()
        return outcome

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Start the call; its errors come out of the iteration."""
        method = client_call_details.method.rpartition("/")[2]
        span = rpcspan.begin_call(client_call_details.method)
        details = _handed_on(client_call_details, self._timeouts.get(method), span)
        return TypedStream(continuation(details, request), self._service, method, span)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Start the call, as one of a single request."""
        return self.intercept_unary_stream(continuation, client_call_details, request_iterator)


class TypedCall:
    """A call with one answer that goes on; arguments as of ``TypedStream``."""

    def __init__(self, call: Any, service: str, method: str, span: tracing.Span) -> None:
        self._call = call
        self._service = service
        self._method = method
        self._span = span

    def result(self) -> Any:
        """Wait for the answer; to be asked for once.

        Raises:
            AetherlessError: the call failed; PEER_UNREACHABLE after ``cancel``.
        """
        with rpcspan.recording_end(self._span):
            try:
                return self._call.result()
            except grpc.FutureCancelledError as error:
                raise peer_unreachable(self._service, "the call was cancelled") from error
            except grpc.RpcError as error:
                raise from_rpc_error(error, self._service, self._method) from error

    def cancel(self) -> bool:
        """End the call from this side; any thread may do it."""
        return bool(self._call.cancel())


class TypedStream:
    """The answers of a streaming call, with typed errors; ends quietly after ``cancel``.

    Args:
        call: gRPC's call.
        service: the service at the other end.
        method: the RPC.
        span: what it is recorded as; ends with the stream, however that ends.
    """

    def __init__(self, call: Any, service: str, method: str, span: tracing.Span) -> None:
        self._call = call
        self._service = service
        self._method = method
        self._span = span
        self._cancelled = False
        if tracing.recording():
            call.add_callback(_at_end(weakref.ref(call), service, method, span))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except StopIteration:
            rpcspan.answered(self._span)
            raise
        except grpc.RpcError as error:
            if self._cancelled:
                raise StopIteration from None
            typed = from_rpc_error(error, self._service, self._method)
            rpcspan.failed(self._span, typed)
            raise typed from error

    def cancel(self) -> bool:
        """End the call from this side; any thread may do it."""
        self._cancelled = True
        self._span.end()
        return bool(self._call.cancel())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _at_end(
    call: weakref.ref[Any], service: str, method: str, span: tracing.Span
) -> Callable[[], None]:
    """Return what ends the span of a stream, also of one that its reader just left.

    It holds the call weakly, since gRPC cancels a call that nobody holds any more.
    """

    def end() -> None:
        held = call()
        if held is None:
            span.end()
        elif held.code() is grpc.StatusCode.OK:
            rpcspan.answered(span)
        else:
            rpcspan.failed(span, from_rpc_error(held, service, method))

    return end


def _handed_on(details: Any, default_s: float | None, span: tracing.Span) -> _Details:
    """Return the details with the deadline of the call being served here, and a span's context."""
    own = details.timeout if details.timeout is not None else default_s
    limits = [limit for limit in (own, callcontext.for_downstream()) if limit is not None]
    metadata = list(details.metadata or ())
    if not tracing.sent(metadata).carrier:
        metadata.extend(span.carrier)
    return _Details(
        method=details.method,
        timeout=min(limits) if limits else None,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
        compression=details.compression,
    )
