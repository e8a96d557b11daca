# SPDX-License-Identifier: Apache-2.0
"""Each client as its registry would have it: packed, brought in by the language's tool, used."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from framework import builders
from framework.channel_peers import CLIENTS

MODULE, VERSION = "aetherless.example/client", "v0.1.0"
GO_PROGRAM = """package main

import aetherless "aetherless.example/client"

func main() { println(aetherless.Serve(nil).Error()) }
"""
NO_CHANNEL = "CHANNEL_NOT_FOUND"


def copied(language: str, target: Path) -> Path:
    """Copy what the repository has of a client."""
    ignored = shutil.ignore_patterns("target", "Cargo.lock", "build", "node_modules")
    return Path(shutil.copytree(CLIENTS / language, target, ignore=ignored))


def said(*command: str | Path, folder: Path) -> str:
    """Run a program that serves where there is no channel; return what it says."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    return done.stdout + done.stderr


def go_proxy(folder: Path) -> Path:
    """Lay a module out as the proxies of Go do (go.dev/ref/mod#goproxy-protocol)."""
    versions = folder / MODULE / "@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text(f"{VERSION}\n")
    (versions / f"{VERSION}.info").write_text(json.dumps({"Version": VERSION}))
    shutil.copy(CLIENTS / "go" / "go.mod", versions / f"{VERSION}.mod")
    with zipfile.ZipFile(versions / f"{VERSION}.zip", "w") as packed:
        for path in sorted((CLIENTS / "go").rglob("*")):
            if path.is_file():
                packed.write(path, f"{MODULE}@{VERSION}/{path.relative_to(CLIENTS / 'go')}")
    return folder


def test_go(tmp_path: Path) -> None:
    """A module that a proxy gives out."""
    program = tmp_path / "program"
    program.mkdir()
    (program / "main.go").write_text(GO_PROGRAM)
    (program / "go.mod").write_text(f"module try\n\ngo 1.19\n\nrequire {MODULE} {VERSION}\n")
    environment = {
        "GOPROXY": go_proxy(tmp_path / "proxy").as_uri(),
        "GOMODCACHE": str(tmp_path / "modules"),
        "GOCACHE": str(tmp_path / "cache"),
        "GOFLAGS": "-mod=mod -modcacherw",
        "GONOSUMDB": "*",
        "CGO_ENABLED": "0",
    }
    builders.run("go", "vet", f"{MODULE}/...", folder=program, **environment)
    builders.run("go", "build", "-o", "try", ".", folder=program, **environment)
    assert NO_CHANNEL in said(program / "try", folder=program)


def test_rust(tmp_path: Path) -> None:
    """A crate, built from what is packed, and nothing but what belongs to it is packed."""
    crate = copied("rust", tmp_path / "rust")
    output = {"CARGO_TARGET_DIR": str(tmp_path / "cargo")}
    builders.run("cargo", "package", "--quiet", "--allow-dirty", folder=crate, **output)
    (packed,) = (tmp_path / "cargo" / "package").glob("*.crate")
    with tarfile.open(packed) as archive:
        names = {Path(name).relative_to(Path(packed.stem)) for name in archive.getnames()}
    sources = {path.relative_to(crate) for path in crate.rglob("*.rs")}
    rest = {"Cargo.toml", "Cargo.toml.orig", "Cargo.lock", "README.md"}
    assert names == sources | {Path(name) for name in rest}


def test_node(tmp_path: Path) -> None:
    """A package that npm installs, with its addon compiled by npm's own node-gyp."""
    package = copied("node", tmp_path / "node")
    builders.run("npm", "pack", "--silent", "--pack-destination", tmp_path, folder=package)
    (packed,) = tmp_path.glob("*.tgz")
    program = tmp_path / "program"
    program.mkdir()
    node = Path(shutil.which("node") or "node").resolve().parents[1]
    options = ("--silent", "--no-audit", "--no-fund", "--offline", f"--nodedir={node}")
    builders.run("npm", "install", *options, packed, folder=program)
    script = "require('aetherless-client').serve((x) => x).catch((e) => console.log(e.code))"
    assert said(node / "bin" / "node", "-e", script, folder=program).strip() == NO_CHANNEL


@pytest.mark.parametrize("language", ["go", "node", "rust"])
def test_they_say_their_license(language: str) -> None:
    """In their manifest, or in each file."""
    for path in (CLIENTS / language).rglob("*"):
        if path.suffix in {".go", ".rs", ".js", ".c", ".ts"} and "node_modules" not in path.parts:
            assert "SPDX-License-Identifier: Apache-2.0" in path.read_text()[:200], path
