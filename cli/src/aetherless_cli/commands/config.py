# SPDX-License-Identifier: Apache-2.0
"""``aetherctl config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Tell about configuration files.

\b
Example:
  aetherctl config schema > aetherless.schema.json
"""
SCHEMA_HELP = """Print the JSON Schema of configuration files, for editors.

With it an editor completes keys, shows what they mean and marks mistakes. Editors that use the YAML
language server read it from a comment in the file's first line.

\b
Example:
  aetherctl config schema > aetherless.schema.json
  sed -i '1i # yaml-language-server: $schema=aetherless.schema.json' aetherless.yaml
"""


@click.group("config", help=HELP)
def command() -> None:
    """Tell about configuration files."""


@command.command("schema", help=SCHEMA_HELP)
@output_option
@click.pass_obj
def schema(options: Options) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from aetherless_cli.config.schema import json_schema
    from aetherless_cli.output import print_data

    print_data(json_schema(), "json" if options.output == "table" else options.output)
