# SPDX-License-Identifier: Apache-2.0
"""``aetherctl check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.options import FUNCTION_ID, output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aetherless_cli.checking import Outcome
    from aetherless_cli.config import Config
    from aetherless_cli.console import Console
    from aetherless_cli.program import Options

HELP = """Try programs before they are deployed, and leave nothing.

TARGET is a configuration file, of which every function is checked, or a program, with the defaults
of a configuration or what the options say. Without TARGET the global -c is taken. Each is started,
warmed up, checkpointed, restored a few times and called. Shown is what it holds, what stands
against a checkpoint and what to change, and the times. The exit status is 0 when all of them can
be deployed.

It works beside a running orchestrator, whose ports and functions are left alone, and without one:
then the services are started for a moment in a folder of their own.

\b
Examples:
  aetherctl check examples/hello.yaml
  aetherctl check ./server.py --port 9000 --env MODE=fast
  aetherctl check server.py -o json | jq '.checks[].findings[].message'
"""
SUFFIXES = {".yaml", ".yml"}


def _variables(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    """Take KEY=VALUE apart."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _id(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """See that an id is one."""
    if value is not None and not FUNCTION_ID.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no function id")
    return value


@click.command("check", help=HELP)
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--id",
    "function_id",
    metavar="ID",
    callback=_id,
    help="Of a file: only this function. Of a program: the id that it is told.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="A program's port.  [default: 8080, or none with --ipc]",
)
@click.option("--ipc", is_flag=True, help="The program serves a channel of shared memory.")
@click.option("--env", metavar="KEY=VALUE", multiple=True, callback=_variables, help="A variable.")
@click.option("--root", metavar="DIR", help="A program's folder.  [default: its own]")
@click.option("--memory", type=click.IntRange(1, 16384), metavar="MB", help="A program's limit.")
@click.option("--warmup", metavar="http|tcp|none|/PATH", help="A program's warm-up.")
@click.option(
    "--restores",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="How many restores to try.",
)
@output_option
@click.pass_obj
def command(
    options: Options, /, target: Path | None, function_id: str | None, restores: int, **keys: Any
) -> None:
    """Try programs before they are deployed, and leave nothing."""
    from aetherless_cli import errors
    from aetherless_cli.console import Console
    from aetherless_cli.interruption import Interrupted, interruptible

    path = target or options.config
    given = {key: value for key, value in keys.items() if value}
    is_file = path.suffix in SUFFIXES
    if is_file and given:
        raise click.UsageError(f"--{next(iter(given))} is for a program; {path} says it by itself")
    config = _of_file(path, function_id) if is_file else _of_program(path, function_id, given)
    try:
        with interruptible():
            _check(config, restores, Console(options.output), options, declared=is_file)
    except Interrupted as signal:
        raise errors.interrupted("aetherctl check") from signal


def _of_file(path: Path, function_id: str | None) -> Config:
    """Return a file's configuration, or only one function of it."""
    from aetherless_cli.configuration import read

    config = read(path)
    wanted = [each for each in config.functions if function_id in (None, each.id)]
    if not wanted:
        known = ", ".join(each.id for each in config.functions)
        raise click.UsageError(f"{path} declares no {function_id}; it has {known}")
    return config.model_copy(update={"functions": wanted})


def _of_program(path: Path, function_id: str | None, given: dict[str, Any]) -> Config:
    """Return the configuration of one program."""
    from aetherless_cli.config.single import single

    names = {"memory": "memory_limit_mb", "env": "environment"}
    keys = {names.get(key, key): value for key, value in given.items()}
    keys["trigger_port"] = keys.pop("port", None if keys.get("ipc") else 8080)
    if keys.get("warmup", "").startswith("/"):
        keys["warmup"] = {"path": keys["warmup"]}
    if function_id:
        keys["id"] = function_id
    return single(str(path), keys.pop("root", None), **keys)


def _check(
    config: Config, restores: int, console: Console, options: Options, *, declared: bool
) -> None:
    """Check all functions of a configuration; show each, then raise the first one's error."""
    from aetherless_cli import checking, orchestrator
    from aetherless_cli.declaration import specs_of
    from aetherless_cli.plain import milliseconds
    from aetherless_common.settings import Settings

    loaded = Settings.load()
    settings = orchestrator.settings_for(config, loaded, running=checking.is_up(loaded))
    outcomes = []
    with checking.registry(settings, console) as services:
        for spec in specs_of(config, settings.restore_timeout_ms):
            limit = milliseconds(spec.restore_timeout) if declared else 0
            outcome = checking.Outcome(spec, limit)
            checking.check(services, outcome, restores, console)
            outcomes.append(outcome)
    _show(outcomes, console, options.output)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error


def _show(outcomes: Sequence[Outcome], console: Console, form: str) -> None:
    """Print what was found out."""
    from aetherless_cli.check_view import show
    from aetherless_cli.output import print_data

    console.clear()
    if form != "table":
        print_data({"checks": [each.data() for each in outcomes]}, form)
        return
    for number, outcome in enumerate(outcomes):
        if number:
            print()
        show(outcome)
