# SPDX-License-Identifier: Apache-2.0
"""A command's run as the root of a trace. Imported only when the OTEL_* variables ask for one."""

from __future__ import annotations

import copy
import functools
import os
from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.entry import INTERRUPTED
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_cli.program import Options


def traced(command: click.Command, options: Options) -> click.Command:
    """Return the command so that its run is recorded; wrong use and help texts are not.

    Args:
        command: the command.
        options: say how a warning is printed.
    """
    recorded = copy.copy(command)
    recorded.callback = _recorded(str(command.name), command.callback or (lambda: None), options)
    return recorded


def _recorded(name: str, callback: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """Return the callback within a span, which is sent at its end, in bounded time."""

    @functools.wraps(callback)
    def run(*args: Any, **kwargs: Any) -> Any:
        tracing.start("cli", lambda text: _warn(text, options))
        span = tracing.begin(f"aetherctl {name}", parent=_caller())
        span.set({"process.executable.name": "aetherctl", "process.pid": os.getpid()})
        if kwargs.get("function_id"):
            span.set({"aetherless.function": kwargs["function_id"]})
        try:
            with tracing.use(span):
                return _with_status(span, lambda: callback(*args, **kwargs))
        finally:
            span.end()
            tracing.stop()

    return run


def _with_status(span: tracing.Span, run: Callable[[], Any]) -> Any:
    """Run a command and note the status that the process will exit with."""
    status = 0
    try:
        return run()
    except BaseException as error:
        status = _exit_status(error)
        if status:
            span.fail(error)
        raise
    finally:
        span.set({"process.exit.code": status})


def _exit_status(error: BaseException) -> int:
    """Return the status that ``main.run`` makes of an error."""
    if isinstance(error, AetherlessError):
        return error.exit_status
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    return INTERRUPTED if isinstance(error, (click.Abort, KeyboardInterrupt)) else 1


def _caller() -> tracing.Span:
    """Return the span that the environment names, as build systems do; by default nobody's."""
    found = ((name, os.environ.get(name.upper(), "")) for name in tracing.HEADERS)
    return tracing.sent((name, value) for name, value in found if value)


def _warn(text: str, options: Options) -> None:
    """Say that traces are lost, or are not."""
    from aetherless_cli.output import print_warning

    print_warning(text, options.output)
