# SPDX-License-Identifier: Apache-2.0
"""Interpreters that the extension is not for."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

MODULE = Path(__file__).resolve().parents[3] / "services" / "ipc" / "ring" / "native" / "module.c"


def test_a_free_threaded_build_is_refused() -> None:
    """By the compiler, with the reason; without that the same source compiles."""
    include = f"-I{sysconfig.get_path('include')}"
    command = ["gcc", "-fsyntax-only", include, str(MODULE)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    refused = subprocess.run(
        [*command, "-DPy_GIL_DISABLED"], check=False, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "a free-threaded build is refused" in refused.stderr
