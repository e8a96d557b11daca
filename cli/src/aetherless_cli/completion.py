# SPDX-License-Identifier: Apache-2.0
"""Completion in shells: click's own, for both names of the program, with functions' ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from click import shell_completion

from aetherless_cli.program import COMPLETION, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable

    import click
    import grpc

SHELLS = ("bash", "zsh", "fish")
#: How long the registry may take to name the functions, in seconds; without it there are none.
PATIENCE = 0.5
#: How many functions are offered at most: one page of the registry's.
MOST = 1000
#: Where each shell's script registers the program, and how it takes a second name.
_REGISTRATION = {
    "bash": (re.compile(r"(complete -o nosort -F \S+ aetherctl)$", re.MULTILINE), r"\1 aether"),
    "zsh": (re.compile(r"(compdef (?:\S+ )?aetherctl)$", re.MULTILINE), r"\1 aether"),
    "fish": (re.compile(r"(--command aetherctl)\b"), r"\1 --command aether"),
}


def script(shell: str, cli: click.Command) -> str:
    """Return what a shell has to read, for ``aetherctl`` and ``aether``.

    Raises:
        ValueError: click does not know the shell, or writes its script in another way.
    """
    kind = shell_completion.get_completion_class(shell)
    if kind is None:
        raise ValueError(f"no completion for {shell}")
    text = kind(cli, {}, PROGRAM, COMPLETION).source()
    place, with_alias = _REGISTRATION[shell]
    text, found = place.subn(with_alias, text)
    if not found:
        raise ValueError(f"the script for {shell} registers nothing")
    return f"{text.rstrip()}\n"


def answer(asked: str, cli: click.Command) -> int:
    """Print what could come next, for a shell that asks; returns the exit status."""
    return shell_completion.shell_complete(cli, {}, PROGRAM, COMPLETION, asked)


def function_ids(incomplete: str) -> list[str]:
    """Return the ids of the functions that begin so; none when no registry answers at once."""
    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless.registry.v1 import registry_service_pb2_grpc as stubs

    def listed(channel: grpc.Channel) -> list[str]:
        request = messages.ListFunctionsRequest(page_size=MOST)
        found = stubs.RegistryServiceStub(channel).ListFunctions(request, timeout=PATIENCE)
        return [each.spec.function_id for each in found.functions]

    return _beginning("registry", listed, incomplete)


def pipeline_ids(incomplete: str) -> list[str]:
    """Return the ids of the pipelines that begin so; none when no ipc service answers at once."""
    from aetherless.ipc.v1 import ipc_service_pb2 as messages
    from aetherless.ipc.v1 import ipc_service_pb2_grpc as stubs

    def listed(channel: grpc.Channel) -> list[str]:
        request = messages.ListPipelinesRequest(page_size=MOST)
        found = stubs.IpcServiceStub(channel).ListPipelines(request, timeout=PATIENCE)
        return [each.name.rpartition("/")[2] for each in found.pipelines]

    return _beginning("ipc", listed, incomplete)


def _beginning(
    service: str, listed: Callable[[grpc.Channel], list[str]], incomplete: str
) -> list[str]:
    """Return what a service lists and begins so; nothing when it does not answer."""
    from aetherless_common.channels import connect
    from aetherless_common.errors import AetherlessError
    from aetherless_common.settings import Settings

    settings = Settings.load()
    if not settings.socket_path(service).exists():
        return []
    with connect(settings, service) as channel:
        try:
            ids = listed(channel)
        except AetherlessError:
            return []
    return [each for each in ids if each.startswith(incomplete)]
