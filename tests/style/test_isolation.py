# SPDX-License-Identifier: Apache-2.0
"""Each package runs beside common and the contracts alone: no other service need be installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOMES = {
    "aetherless_registry": "services/registry/src",
    "aetherless_snapshotter": "services/snapshotter/src",
    "aetherless_netplane": "services/netplane/src",
    "aetherless_ipc": "services/ipc/src",
    "aetherless_ring": "services/ipc/ring/src",
    "aetherless_client": "clients/python/src",
    "aetherless_cli": "cli/src",
}
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path[:0] = sys.argv[2:]
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


@pytest.mark.parametrize("package", HOMES)
def test_package_imports_alone(package: str) -> None:
    """Every module of the package imports when the other services are not there."""
    shared = [
        ROOT / each for each in ("services/common/src", "services/ipc/ring/src", "protos/gen")
    ]
    shared.append(Path(sysconfig.get_path("purelib")))
    # -S leaves the .pth lines out that would bring the whole workspace in.
    command = [sys.executable, "-S", "-c", IMPORT_ALL, package, str(ROOT / HOMES[package])]
    done = subprocess.run(
        [*command, *map(str, shared)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    sources = {p.stem for p in (ROOT / HOMES[package] / package).rglob("*.py")} - {"__init__"}
    imported = {line.rpartition(".")[2] for line in done.stdout.split()}
    assert sources <= imported


def test_another_service_is_out_of_sight() -> None:
    """The check above can fail: without its folder, a service does not import."""
    command = [sys.executable, "-S", "-c", "import aetherless_netplane"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "ModuleNotFoundError" in done.stderr
