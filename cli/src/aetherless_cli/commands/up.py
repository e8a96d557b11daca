# SPDX-License-Identifier: Apache-2.0
"""``aetherctl up``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import config_option, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Start the services and deploy every function of the file.

Returns 0 when every function is deployed and its port is routed; the services go on in the
background, and a function that runs no longer needs even them. With -f it stays, prints one line
per wake, and takes everything down on Ctrl-C, SIGTERM or SIGHUP.

If it is up already, the file is applied as `aetherctl deploy` does. If nothing could be deployed,
everything that this command started is taken down again.

\b
Examples:
  aetherctl -c examples/hello.yaml up
  aetherctl -c examples/hello.yaml up --foreground
  export AETHER_RUNTIME_DIR=/run/second AETHER_STATE_DIR=/var/lib/second
  aetherctl -c second.yaml up          a second orchestrator
"""


@click.command("up", help=HELP)
@click.option("-f", "--foreground", is_flag=True, help="Stay, show wakes, take down at the end.")
@config_option
@output_option
@click.pass_obj
def command(options: Options, *, foreground: bool) -> None:
    """Start the services and deploy every function of the file."""
    from aetherless_cli.configuration import read
    from aetherless_cli.console import Console
    from aetherless_cli.session import Session

    config = read(options.config)
    Session(config, Console(options.output)).run(foreground=foreground)
