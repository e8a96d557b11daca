# SPDX-License-Identifier: Apache-2.0
"""``aetherctl completion``."""

from __future__ import annotations

import click

from aetherless_cli.completion import SHELLS, script

HELP = """Print what a shell needs to complete command lines.

Commands, options, files and the ids of functions and pipelines; for aetherctl and aether.

\b
Examples:
  source <(aetherctl completion bash)         this bash
  aetherctl completion bash > /etc/bash_completion.d/aetherctl
  source <(aetherctl completion zsh)          this zsh, after compinit
  aetherctl completion fish > ~/.config/fish/completions/aetherctl.fish
"""


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what a shell needs to complete command lines."""
    click.echo(script(shell, context.find_root().command), nl=False)
