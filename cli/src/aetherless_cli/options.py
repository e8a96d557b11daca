# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and what they do to the global ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aetherless_cli import errors
from aetherless_cli.program import Options

if TYPE_CHECKING:
    from collections.abc import Callable

FUNCTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LONGEST_CALL_S = 900.0


def _set_output(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_object(Options).output = value  # type: ignore[union-attr] # set by the group


def _set_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.find_object(Options).config = value  # type: ignore[union-attr] # set by the group


def check_id(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse what can't be an id.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    if value is not None and not FUNCTION_ID.fullmatch(value):
        raise errors.invalid_id(value)
    return value


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let -o stand behind the command as well."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        callback=_set_output,
        expose_value=False,
        help="How to print results and errors.",
    )(function)


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let -c stand behind the command as well."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_set_config,
        expose_value=False,
        metavar="FILE",
        help="The configuration file.",
    )(function)


def id_argument(*, required: bool = True) -> Callable[..., Any]:
    """Take a function's id; shells complete it."""
    return _id_argument("function_id", complete_ids, required=required)


def pipeline_argument(*, required: bool = True) -> Callable[..., Any]:
    """Take a pipeline's id; shells complete it."""
    return _id_argument("pipeline_id", complete_pipelines, required=required)


def _id_argument(
    name: str, complete: Callable[..., list[str]], *, required: bool
) -> Callable[..., Any]:
    return click.argument(
        name,
        metavar="ID" if required else "[ID]",
        required=required,
        callback=check_id,
        shell_complete=complete,
    )


def complete_ids(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the deployed functions that begin so, for a shell."""
    from aetherless_cli.completion import function_ids

    return function_ids(incomplete)


def complete_pipelines(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the pipelines that begin so, for a shell."""
    from aetherless_cli.completion import pipeline_ids

    return pipeline_ids(incomplete)


def data_options(taker: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take what a call is given: source, data, file; ``taker`` is who is given it, for the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        file = click.option(
            "--file", type=click.File("rb"), metavar="PATH", help="Give it a file's bytes."
        )
        data = click.option("--data", metavar="TEXT", help=f"Give {taker} this text, as UTF-8.")
        source = click.argument("source", required=False, type=click.Choice(["-"]), metavar="[-]")
        return source(data(file(function)))

    return decorate


def time_options(otherwise: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take how long a call may take: timeout, wait; ``otherwise`` is its limit, for the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        wait = click.option(
            "--wait", is_flag=True, help="Wait while the ring has no room, instead of RING_FULL."
        )
        timeout = click.option(
            "--timeout",
            type=click.FloatRange(0.001, LONGEST_CALL_S),
            metavar="SECONDS",
            help=f"How long it may take; left out, {otherwise}.",
        )
        return timeout(wait(function))

    return decorate


def require_root(command: str) -> None:
    """Refuse to go on as another user.

    Raises:
        FailedPrecondition: NOT_ROOT.
    """
    if os.geteuid() != 0:
        raise errors.not_root(command)
