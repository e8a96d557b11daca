# SPDX-License-Identifier: Apache-2.0
"""The extension built with sanitizers (address, undefined behaviour), in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

RING_FOLDER = Path(__file__).resolve().parents[3] / "services" / "ipc" / "ring"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
BUILT = shutil.ignore_patterns("*.so", "__pycache__")


def run_sanitized(folder: Path, program: str) -> None:
    """Build the extension in a folder and run a program with it; it must end well.

    Args:
        folder: an empty one.
        program: Python; it finds the tests.
    """
    package = folder / "aetherless_ring"
    shutil.copytree(RING_FOLDER / "src" / "aetherless_ring", package, ignore=BUILT)
    built = ("-o", str(package / "_native.abi3.so"), str(RING_FOLDER / "native" / "module.c"))
    include = f"-I{sysconfig.get_path('include')}"
    limited = "-DPy_LIMITED_API=0x030B0000"
    command = ["gcc", "-g", "-O1", *SANITIZERS, "-shared", "-fPIC", limited, include, *built]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    libraries = [_compilers_file(name) for name in ("libasan.so", "libubsan.so")]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": f"{folder}:{RING_FOLDER.parents[2] / 'tests'}",
            "PYTHONMALLOC": "malloc",
            "LD_PRELOAD": " ".join(libraries),
            # The interpreter itself leaves memory behind at its end.
            "ASAN_OPTIONS": "detect_leaks=0",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _compilers_file(name: str) -> str:
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True, timeout=60
    )
    return found.stdout.strip()
