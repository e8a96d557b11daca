# SPDX-License-Identifier: Apache-2.0
"""The translation programs in the kernel, in a bpffs of the tests' own; nothing is attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless_netplane import bpffs
from framework.bpfkernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory, prefix: Path) -> Iterator[Kernel]:
    """Load the programs once."""
    folder = tmp_path_factory.mktemp("bpf") / "fs"
    bpffs.mount(folder)
    try:
        kernel = Kernel(folder, prefix / "bpf")
        yield kernel
        kernel.close()
    finally:
        bpffs.unmount(folder)


@pytest.fixture
def kernel(loaded: Kernel) -> Kernel:
    """Give the programs with fresh endpoints, counters and connections."""
    loaded.reset()
    return loaded
