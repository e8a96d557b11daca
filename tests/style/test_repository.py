# SPDX-License-Identifier: Apache-2.0
"""Rules about the repository itself: headers, versions, pins, addresses, sizes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "registry", "snapshotter", "netplane", "ipc", "ring", "client", "cli")
SOURCE_KINDS = {".py", ".pyi", ".c", ".h", ".sh", ".proto", ".toml", ".mk", ".service", ".target"}
SOURCE_NAMES = {"Makefile", "run", "buf.yaml", ".clang-format", ".editorconfig"}
LONGEST_FUNCTION = 60
LONGEST_MODULE = 400
LARGEST_INIT = 3350  # launch, protocol and CRIU's answers included; pid 1 alone is about 2,100
# Written with a character class each, so that this file does not match itself.
MACHINE_WORDS = re.compile(
    r"(?<![\w.$})/-])/(?:wor[k]|far[m])/|/opt/wheel[s]|/root/\.pyen[v]|/tmp/brie[f]"
    r"|deb\.debian\.or[g]|pypi\.or[g]|pythonhoste[d]|registry\.npmj[s]|proxy\.golan[g]"
    r"|crates\.i[o]|repo1?\.mave[n]"
)


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files under version control, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def python_sources() -> list[Path]:
    """Return our own Python modules, without generated ones."""
    generated = ROOT / "protos" / "gen"
    return [p for p in tracked() if p.suffix == ".py" and not p.is_relative_to(generated)]


def relative(path: Path) -> str:
    """Return the path as the repository names it."""
    return str(path.relative_to(ROOT))


def pyprojects() -> dict[str, dict[str, object]]:
    """Return every package's [project] table by the package's folder."""
    found = {}
    for path in tracked():
        if path.name == "pyproject.toml" and path.parent != ROOT:
            found[relative(path.parent)] = tomllib.loads(path.read_text())["project"]
    return found


def test_every_source_file_names_its_licence() -> None:
    """The SPDX line stands among the first three lines."""
    sources = [p for p in tracked() if p.suffix in SOURCE_KINDS or p.name in SOURCE_NAMES]
    bare = [
        relative(path)
        for path in sources
        if not any("SPDX-License-Identifier:" in line for line in path.read_text().splitlines()[:3])
        and path.stat().st_size
    ]
    assert sources
    assert bare == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Where this repository was written, and where packages come from, is not in it."""
    hits = []
    for path in tracked():
        text = path.read_text(errors="replace")
        hits += [f"{relative(path)}: {found.group()}" for found in MACHINE_WORDS.finditer(text)]
    assert hits == []


def test_all_packages_have_one_version() -> None:
    """The packages are released together, under one version."""
    versions = {str(project["version"]) for project in pyprojects().values()}
    assert len(pyprojects()) == len(PACKAGES) + 1
    assert len(versions) == 1


def test_clients_have_that_version() -> None:
    """The packages of other languages are released with the others; Go's has its tag alone."""
    crate = tomllib.loads((ROOT / "clients" / "rust" / "Cargo.toml").read_text())["package"]
    npm = json.loads((ROOT / "clients" / "node" / "package.json").read_text())
    expected = pyprojects()["clients/python"]["version"]
    assert (crate["version"], npm["version"]) == (expected, expected)


def test_requirements_satisfy_every_package() -> None:
    """requirements.txt pins, with hashes, what each package and the dev group ask for."""
    text = (ROOT / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    for project in pyprojects().values():
        wanted = wanted + project["dependencies"]
    asked = [Requirement(line) for line in wanted if not line.startswith("aetherless-")]
    unmet = [str(need) for need in asked if pins.get(need.name.lower(), "") not in need.specifier]
    assert asked
    assert unmet == []
    assert text.count("--hash=sha256:") >= len(pins)


def test_packages_are_plain_path_entries() -> None:
    """Editable installs are .pth lines: an import hook would blind type checkers and cost time."""
    names = ["aetherless", *(f"aetherless_{name}" for name in PACKAGES)]
    code = f"import importlib\nfor n in {names}: print(importlib.import_module(n).__file__)"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    assert all(Path(file).is_relative_to(ROOT) for file in printed)
    assert len(printed) == len(names)
    hooks = list(Path(sys.prefix).glob("lib/python*/site-packages/__editable__*_finder.py"))
    assert hooks == []


def test_modules_are_short() -> None:
    """No module of ours is longer than one can keep in mind."""
    lengths = {relative(path): len(path.read_text().splitlines()) for path in python_sources()}
    assert {name: n for name, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    """No function of ours is longer than a screen."""
    long = []
    for path in python_sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                long.append(f"{relative(path)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_the_init_stays_small() -> None:
    """The sandbox's pid 1 is small enough to be read in one sitting."""
    folder = ROOT / "services" / "snapshotter" / "init"
    files = [p for p in tracked() if p.parent == folder and p.suffix in {".c", ".h"}]
    if not files:
        pytest.fail("services/snapshotter/init has no C source")
    comment = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
    code = "".join(comment.sub("", path.read_text()) for path in files)
    assert len([line for line in code.splitlines() if line.strip()]) < LARGEST_INIT


def test_the_folder_map_is_complete() -> None:
    """Each folder at the top has its line in CONTRIBUTING.md."""
    table = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {relative(p).split("/")[0] for p in tracked() if p.parent != ROOT}
    assert {f for f in folders if f"`{f}/" not in table} - {".ci"} == set()
