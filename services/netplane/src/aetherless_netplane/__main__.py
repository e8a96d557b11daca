# SPDX-License-Identifier: Apache-2.0
"""The netplane's process: ``python -m aetherless_netplane [--cleanup]``."""

from __future__ import annotations

import sys

from aetherless_common.server import run_service
from aetherless_netplane.cleanup import cleanup
from aetherless_netplane.service import NetplaneService

if __name__ == "__main__":
    sys.exit(run_service("netplane", NetplaneService, cleanup))
