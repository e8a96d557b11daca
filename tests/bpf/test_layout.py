# SPDX-License-Identifier: Apache-2.0
"""The structs of the service are those that the objects were compiled with."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_netplane.layout import STRUCTS
from aetherless_netplane.programs import OBJECTS

if TYPE_CHECKING:
    from pathlib import Path


def structs_of(path: Path) -> dict[str, Any]:
    """Return the structs in an object's BTF, by name."""
    bpftool = shutil.which("bpftool", path="/usr/sbin:/usr/bin") or "bpftool"
    command = [bpftool, "-j", "btf", "dump", "file", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    types = json.loads(printed)["types"]
    return {t["name"]: t for t in types if t["kind"] == "STRUCT" and t["name"] != "(anon)"}


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_has_the_compiled_layout(name: str, prefix: Path) -> None:
    """Size, names and offsets of the fields agree with all objects that have the struct."""
    ours = STRUCTS[name]
    offsets = {field: getattr(ours, field).offset for field, *_ in ours._fields_}
    seen = 0
    for object_name in OBJECTS:
        compiled = structs_of(prefix / "bpf" / f"{object_name}.bpf.o").get(name)
        if compiled is None:
            continue
        seen += 1
        assert compiled["size"] == ctypes.sizeof(ours)
        assert {m["name"]: m["bits_offset"] // 8 for m in compiled["members"]} == offsets
    assert seen
