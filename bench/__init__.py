# SPDX-License-Identifier: Apache-2.0
"""Measures the promises of SPECIFICATION.md: ``make bench``."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CRIU = REPOSITORY / ".prefix" / "lib" / "aetherless" / "criu"
# What deploy/setup/bench_packages.sh installs: other projects' runtimes and the plotting library.
INSTALLED = REPOSITORY / "build" / "bench"
# The benchmarks drive orchestrators as the functional tests do, by the same framework.
sys.path.insert(0, str(REPOSITORY / "tests"))
