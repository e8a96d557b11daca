# SPDX-License-Identifier: Apache-2.0
"""The life of a service's process: lock, adopt, listen, serve, drain, clean up after itself."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from aetherless_common import logs, tracing
from aetherless_common.channels import MESSAGES
from aetherless_common.errors import AetherlessError, Internal
from aetherless_common.interceptor import ServiceInterceptor
from aetherless_common.lock import service_lock
from aetherless_common.proc import ProcessRef
from aetherless_common.serviceconfig import full_service_name
from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = structlog.get_logger()
# Each open stream and each waiting call holds a thread; a call beyond the limit is refused at once
# (PEER_UNREACHABLE). Callers of functions wait in calls of the ipc service.
THREADS = 64
CALLERS = {"ipc": 1024}
GRACE_S = 5.0
SOCKET_UMASK = 0o177


class Service(Protocol):
    """What a service brings; ``run_service`` calls it in this order."""

    def start(self) -> None:
        """Probe what is needed, adopt what is found, undo what was half done."""

    def register(self, server: grpc.Server) -> None:
        """Add the servicer to the server."""

    def stop(self) -> None:
        """End what would keep calls waiting (watches), then the service's own threads.

        Called when the server is draining. What the service owns on the host stays.
        """


def run_service(
    name: str,
    make: Callable[[Settings], Service],
    cleanup: Callable[[Settings], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Be the process of a service until SIGTERM or SIGINT; return its exit status.

    Args:
        name: the service; names its socket, lock, pid file and gRPC service.
        make: builds the service; does nothing yet that the host could see.
        cleanup: removes from the host all that the service owns; run for ``--cleanup`` alone.
        argv: the arguments, without the program's name.
    """
    parser = argparse.ArgumentParser(prog=f"aetherless_{name}", allow_abbrev=False)
    parser.add_argument("--cleanup", action="store_true", help="remove what the service owns")
    arguments = parser.parse_args(argv)
    logs.configure(name)
    if not arguments.cleanup:
        tracing.start(name, lambda text: log.warning("tracing", cause=text))
    try:
        settings = Settings.load()
        settings.make_folders()
        with service_lock(settings, name):
            if arguments.cleanup:
                cleanup(settings)
                _remove_files(settings, name)
            else:
                _serve_until_told(settings, name, make(settings))
    except AetherlessError as error:
        log.error("ended", reason=error.reason, error=error.message, details=error.metadata)  # noqa: TRY400
        sys.stderr.flush()
        return error.exit_status
    finally:
        tracing.stop()
    return 0


@contextmanager
def serving(settings: Settings, name: str, service: Service) -> Iterator[grpc.Server]:
    """Serve a started service on its socket; drain and remove the socket at the end.

    The caller holds the service's lock.

    Raises:
        Internal: the socket could not be bound.
    """
    checks = health.HealthServicer(experimental_non_blocking=True)
    server = _make_server(name, service, checks)
    _bind(server, settings, name)
    server.start()
    for served in ("", full_service_name(name)):
        checks.set(served, health_pb2.HealthCheckResponse.SERVING)
    ProcessRef.of(os.getpid()).write(settings.pid_path(name))
    log.info("serving", socket=str(settings.socket_path(name)))
    try:
        yield server
    finally:
        checks.enter_graceful_shutdown()
        stopped = server.stop(GRACE_S)
        service.stop()
        stopped.wait()
        _remove_files(settings, name)


def _serve_until_told(settings: Settings, name: str, service: Service) -> None:
    """Start the service, serve it, and return after SIGTERM or SIGINT."""
    told = _catch_signals()
    try:
        service.start()
    except BaseException:
        service.stop()
        raise
    with serving(settings, name, service):
        select.select([told], [], [])
        log.info("draining")
    log.info("ended")


def _catch_signals() -> int:
    """Return a descriptor that can be read once SIGTERM or SIGINT came.

    A lock that is set by the signal's handler would not do: the signal may come between the
    interpreter's last look at it and the wait.
    """
    told, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return told


def _make_server(name: str, service: Service, checks: health.HealthServicer) -> grpc.Server:
    """Return the server with the service, health checks, and reflection of just these."""
    threads = CALLERS.get(name, THREADS)
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix=name),
        interceptors=[ServiceInterceptor(name)],
        options=MESSAGES,
        maximum_concurrent_rpcs=threads,
    )
    service.register(server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (full_service_name(name), health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server


def _bind(server: grpc.Server, settings: Settings, name: str) -> None:
    """Make the service's socket, 0600 from its first moment."""
    path = settings.socket_path(name)
    path.unlink(missing_ok=True)  # a stale one: we hold the lock
    before = os.umask(SOCKET_UMASK)
    try:
        bound = server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise Internal("INTERNAL", f"can't listen on {path}: {error}", {"path": path}) from error
    finally:
        os.umask(before)
    if not bound:
        raise Internal("INTERNAL", f"can't listen on {path}", {"path": path})


def _remove_files(settings: Settings, name: str) -> None:
    """Remove the service's socket and pid file."""
    settings.socket_path(name).unlink(missing_ok=True)
    settings.pid_path(name).unlink(missing_ok=True)
