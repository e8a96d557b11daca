# SPDX-License-Identifier: Apache-2.0
"""The clients' examples, built into folders of their own, as functions of an orchestrator."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import builders
from .channel_peers import CLIENTS, build_addon
from .mesh import Function

if TYPE_CHECKING:
    from collections.abc import Callable


def _c(target: Path) -> Path:
    header = CLIENTS / "c" / "single_header.py"
    builders.run(sys.executable, header, target / "aetherless.h", folder=target)
    source, output = CLIENTS / "c" / "example" / "upper.c", ("-o", target / "upper")
    builders.run("gcc", "-std=gnu11", "-O2", f"-I{target}", *output, source, folder=target)
    return target / "upper"


def _go(target: Path) -> Path:
    builders.run(
        "go", "build", "-o", target / "upper", "./example",
        folder=CLIENTS / "go",
        CGO_ENABLED="0", GOFLAGS="-mod=mod", GOPROXY="off",
        GOCACHE=str(target.parent / builders.GO_CACHE),
    )  # fmt: skip
    return target / "upper"


def _node(target: Path) -> Path:
    """Lay the package out as npm does, its addon compiled."""
    package = target / "node_modules" / "aetherless-client"
    ignored = shutil.ignore_patterns("build", "node_modules", "example")
    shutil.copytree(CLIENTS / "node", package, ignore=ignored)
    build_addon(package)
    return Path(shutil.copy(CLIENTS / "node" / "example" / "upper.js", target))


def _rust(target: Path) -> Path:
    """Build a copy: cargo writes its lock beside the sources."""
    crate, cargo = target.parent / "crate", target.parent / "cargo"
    ignored = shutil.ignore_patterns("target", "Cargo.lock")
    shutil.copytree(CLIENTS / "rust", crate, ignore=ignored)
    options = ("--quiet", "--release", "--example", "upper")
    builders.run("cargo", "build", *options, folder=crate, CARGO_TARGET_DIR=str(cargo))
    return Path(shutil.copy(cargo / "release" / "examples" / "upper", target))


BUILDS: dict[str, Callable[[Path], Path]] = {"c": _c, "go": _go, "node": _node, "rust": _rust}


def function(language: str, folder: Path) -> Function:
    """Build a language's example; return it as a function that may call the other ones.

    Arguments:
        language: One of BUILDS; the function's id.
        folder: A new folder for what is built.
    """
    target = folder / "function"
    target.mkdir(parents=True)
    others = [each for each in BUILDS if each != language]
    keys = {"ipc": True, "may_call": others}
    return Function(language, BUILDS[language](target), port=0, keys=keys)
