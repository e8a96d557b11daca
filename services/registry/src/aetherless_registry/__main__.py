# SPDX-License-Identifier: Apache-2.0
"""``python -m aetherless_registry``: serve; with ``--cleanup [--purge]``, leave nothing behind."""

from __future__ import annotations

import sys

from aetherless_common.server import run_service
from aetherless_registry.service import RegistryService, cleanup, purge

PURGE = "--purge"


def main(arguments: list[str]) -> int:
    """Be the registry's process; return its exit status."""
    purging = PURGE in arguments and "--cleanup" in arguments
    if purging:
        arguments = [argument for argument in arguments if argument != PURGE]
    return run_service("registry", RegistryService, purge if purging else cleanup, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
