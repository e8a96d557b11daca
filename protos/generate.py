# SPDX-License-Identifier: Apache-2.0
"""Generate protos/gen and protos/api.txtpb from the contracts in protos/aetherless.

Run by ``make gen`` with the pinned grpcio-tools and mypy-protobuf of the environment. With
``--check`` nothing is written; the names of files that are out of date are printed and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, text_format

PROTOS = Path(__file__).resolve().parent
SOURCES = PROTOS / "aetherless"
TREE = PROTOS / "gen" / "aetherless"
API = PROTOS / "api.txtpb"
SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
PACKAGE_INIT = SPDX + '"""Generated protobuf code of the Aetherless contracts."""\n'


class GenerationError(Exception):
    """The generator refused the contracts; its own words are the message."""


def main(argv: list[str] | None = None) -> int:
    """Write the generated files, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    check = parser.parse_args(argv).check
    try:
        wanted = generated_files()
    except GenerationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    stale = sorted(path for path in wanted.keys() | existing_files() if differs(path, wanted))
    for path in stale:
        done = "stale" if check else "wrote" if path in wanted else "removed"
        sys.stdout.write(f"{done} {path.relative_to(PROTOS.parent)}\n")
        if not check:
            replace(path, wanted.get(path))
    return 1 if check and stale else 0


def generated_files() -> dict[Path, bytes]:
    """Return what each generated file should hold.

    Raises:
        GenerationError: a contract does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run_protoc(out)
        files = {API: api_text(out / "api.binpb")}
        for made in (out / "aetherless").rglob("*.py*"):
            if "_pb2_grpc." in made.name and "_service_" not in made.name:
                continue  # a file without a service: its module would be empty
            files[TREE.parent / made.relative_to(out)] = SPDX.encode() + made.read_bytes()
    for config in SOURCES.rglob("*_grpc_service_config.json"):
        files[TREE / config.relative_to(SOURCES)] = config.read_bytes()
    folders = {parent for path in files for parent in path.parents if parent.is_relative_to(TREE)}
    files |= {folder / "__init__.py": PACKAGE_INIT.encode() for folder in folders | {TREE}}
    files[TREE / "py.typed"] = b""
    return files


def run_protoc(out: Path) -> None:
    """Compile every contract into the folder ``out``."""
    tools = Path(sys.executable).parent
    contracts = sorted(str(path.relative_to(PROTOS)) for path in SOURCES.rglob("*.proto"))
    command = [
        *(sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I."),
        f"--plugin={tools / 'protoc-gen-mypy'}",
        f"--plugin={tools / 'protoc-gen-mypy_grpc'}",
        *(f"--{kind}_out={out}" for kind in ("python", "grpc_python")),
        *(f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")),
        f"--descriptor_set_out={out / 'api.binpb'}",
        *contracts,
    ]
    done = subprocess.run(command, cwd=PROTOS, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerationError(done.stderr.strip())


def api_text(compiled: Path) -> bytes:
    """Return the compiled descriptors as text, so that a change of contract shows in a diff."""
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    header = f"{SPDX}# The compiled contracts as text, made by make gen.\n"
    return (header + text_format.MessageToString(descriptors)).encode()


def existing_files() -> set[Path]:
    """Return the generated files that are there, but for bytecode."""
    return {p for p in TREE.rglob("*") if p.is_file() and p.parent.name != "__pycache__"}


def differs(path: Path, wanted: dict[Path, bytes]) -> bool:
    """Tell whether ``path`` does not hold what is wanted, or should not be there."""
    return not path.is_file() or path.read_bytes() != wanted.get(path)


def replace(path: Path, content: bytes | None) -> None:
    """Put ``content`` at ``path`` in one step; None removes it."""
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(content)
    shutil.move(scratch, path)


if __name__ == "__main__":
    sys.exit(main())
