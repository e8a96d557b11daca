# SPDX-License-Identifier: Apache-2.0
"""``aetherctl``: the command tree, and the one place where errors become exit statuses.

Command modules are imported when they are needed, so that ``--help`` costs no more than click.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.entry import INTERRUPTED, interrupted
from aetherless_cli.program import COMPLETION, PROGRAM, USAGE, Options
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError, internal

if TYPE_CHECKING:
    from collections.abc import Sequence

# Command -> (section, the first line of its help); the module is commands/<command>.py.
COMMANDS = {
    "up": ("Orchestrator", "Start the services and deploy every function of the file."),
    "down": ("Orchestrator", "End everything and remove it from this host."),
    "doctor": ("Orchestrator", "Check that this host can run functions."),
    "validate": ("Functions", "Check a configuration file; change nothing."),
    "check": ("Functions", "Try programs before they are deployed, and leave nothing."),
    "deploy": ("Functions", "Add or update the functions and pipelines of a file."),
    "rollback": ("Functions", "Lead a function back to an earlier revision."),
    "delete": ("Functions", "Delete a function and all that serves it."),
    "evict": ("Functions", "End a running function now; its next call restores it."),
    "wake": ("Functions", "Restore a function before anyone calls it."),
    "invoke": ("Functions", "Call a function through its channel of shared memory."),
    "pipeline": ("Functions", "Run pipelines, and see what goes through them."),
    "list": ("Inspection", "List the functions."),
    "describe": ("Inspection", "Show one function, its revisions, its processes and its snapshot."),
    "stats": ("Inspection", "Show requests, wakes, latencies and memory."),
    "events": ("Inspection", "Show what happened: deploys, wakes, evictions, failures."),
    "trace": ("Inspection", "Show the newest wake of a function as a waterfall."),
    "logs": ("Inspection", "Show what a function printed: its standard output and error."),
    "config": ("Shell and editor", "Tell about configuration files."),
    "completion": ("Shell and editor", "Print what a shell needs to complete command lines."),
}
EXAMPLES = """\
\b
Examples:
  aetherctl doctor                                can this host do it?
  aetherctl -c examples/hello.yaml up             start, deploy, return
  curl localhost:8080                             restored by this very call
  aetherctl describe hello-api                    which process answered
  aetherctl -o json stats | jq                    numbers for programs
  aetherctl down                                  leave nothing behind
"""


class LazyGroup(click.Group):  # its methods' arguments are click's
    """Knows its commands by name; imports one when it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; its run is traced when that is asked for."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"aetherless_cli.commands.{cmd_name}")
        command: click.Command = module.command
        if not tracing.wanted():
            return command
        from aetherless_cli.traced import traced

        return traced(command, ctx.ensure_object(Options))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a misspelt one say which was meant."""
        import difflib

        name = args[0]
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if name not in COMMANDS and near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, without importing them."""
        for section in dict.fromkeys(section for section, _ in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, text) for name, (where, text) in COMMANDS.items() if where == section]
                )


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store a global option at once, so that errors on the way are printed as it says."""
    setattr(ctx.ensure_object(Options), str(parameter.name), value)


@click.group(
    cls=LazyGroup,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("aetherless.yaml"),
    show_default=True,
    metavar="FILE",
    callback=_keep,
    expose_value=False,
    help="The configuration file.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    callback=_keep,
    expose_value=False,
    help="How to print results and errors.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=_keep,
    expose_value=False,
    help="Show tracebacks and every detail.",
)
@click.version_option(package_name="aetherless-cli", message="aetherctl %(version)s")
def cli() -> None:
    """Run ordinary programs as functions that sleep as checkpoints and wake in milliseconds.

    AETHER_RUNTIME_DIR (default /run/aetherless) and AETHER_STATE_DIR (default
    /var/lib/aetherless) choose the orchestrator; several can run on one host.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the fixed status of the error's class."""
    asked = os.environ.get(COMPLETION)
    if asked:
        from aetherless_cli.completion import answer

        sys.exit(answer(asked, cli))
    args = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(args))


def run(arguments: list[str]) -> int:  # noqa: PLR0911 (one per way to end)
    """Run one command line; return its exit status, with errors printed."""
    options = Options()
    try:
        with cli.make_context(PROGRAM, arguments, obj=options) as ctx:
            cli.invoke(ctx)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as wrong:
        wrong.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except AetherlessError as error:
        return _failed(error, options)
    except Exception as error:  # noqa: BLE001 (the outermost place: typed and printed)
        if interrupted():
            return INTERRUPTED
        return _failed(_unexpected(error), options, traceback.format_exc())
    return 0


def _failed(error: AetherlessError, options: Options, trace: str = "") -> int:
    from aetherless_cli.output import print_error

    sys.stdout.flush()
    if options.verbose:
        sys.stderr.write(trace or "".join(traceback.format_exception(error)))
    print_error(error, options.output)
    return error.exit_status


def _unexpected(error: Exception) -> AetherlessError:
    typed = internal(f"{type(error).__name__}: {error}")
    typed.domain = "cli.aetherless"
    return typed


def _pipe_closed() -> int:
    # The reader went away (head, less). Python would complain once more while it shuts down.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
