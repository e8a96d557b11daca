# SPDX-License-Identifier: Apache-2.0
"""``aetherctl validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Check a configuration file; change nothing.

Everything that is wrong is told at once, each with file, line and column. Needs no services and no
root. Without FILE the global -c is taken.

\b
Example:
  aetherctl validate examples/hello.yaml
"""
COLUMNS = ("ID", "PORT", "MEMORY MB", "RESTORE MS", "HANDLER", "ROOT")


@click.command("validate", help=HELP)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@output_option
@click.pass_obj
def command(options: Options, file: Path | None) -> None:
    """Check a configuration file; change nothing."""
    from aetherless_cli.configuration import read
    from aetherless_cli.output import print_data, print_table

    path = file or options.config
    config = read(path)
    if options.output != "table":
        print_data({"file": str(path), **config.model_dump()}, options.output)
        return
    default = config.orchestrator.restore_timeout_ms
    rows = [
        [
            each.id,
            each.trigger_port,
            each.memory_limit_mb,
            each.restore_timeout_ms or default,
            each.handler_path,
            each.root,
        ]
        for each in config.functions
    ]
    print_table(COLUMNS, rows)
    print(f"{path} is valid")
