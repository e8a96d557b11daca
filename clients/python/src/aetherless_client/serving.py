# SPDX-License-Identifier: Apache-2.0
"""The serve loop: attach, answer each request once, attach anew when the service let go."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from aetherless_client.answering import answer, outcome
from aetherless_client.errors import ClientError
from aetherless_client.fastpath import Handler, Handlers
from aetherless_client.process import client_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from aetherless_client.client import Client


def serve(
    handler: Handler | Mapping[str, Handler] | None = None,
    /,
    *,
    path: str | os.PathLike[str] | None = None,
    threads: int = 1,
    spin: float = 0.0,
) -> Any:
    """Answer the channel's calls; does not return. Also a decorator, with or without arguments.

    Calls are answered, and records of pipelines handed on. It may run in any thread, beside
    whatever else the program does.

    Args:
        handler: from the caller's bytes to the answer's, for every method; or one for each name.
        path: the side socket; by default what AETHER_CHANNEL names.
        threads: how many handlers run at once.
        spin: seconds to look for a request again and again before sleeping.

    Raises:
        NoChannelError, AttachRefusedError, InvalidRegionError: as ``attach``.
    """
    if handler is None:
        return partial(serve, path=path, threads=threads, spin=spin)
    handlers = Handlers(handler)
    client = client_of(path)
    for number in range(1, threads):
        name, given = f"aetherless-handler-{number}", (client, handlers, spin)
        threading.Thread(target=_help, args=given, name=name, daemon=True).start()
    return _answer_all(client, handlers, spin)


def _help(client: Client, handlers: Handlers, spin: float) -> None:
    """Answer beside the thread that serves, which tells what went wrong."""
    try:
        _answer_all(client, handlers, spin)
    except ClientError:
        return


def _answer_all(client: Client, handlers: Handlers, spin: float) -> NoReturn:
    while True:
        work = client.next_work(spin, handlers=handlers)
        if work is not None:
            answer(client, work, *(work.outcome or outcome(handlers.find, work)))
