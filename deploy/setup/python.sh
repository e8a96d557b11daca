#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .venv from Debian's Python with the hashed pins of requirements.txt, and the packages of
# this workspace editable.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PYTHON=/usr/bin/python3 # Debian's: one on PATH may lie in a home that no sandbox can read
VENV="$ROOT/.venv"
PACKAGES=(protos services/common services/registry services/snapshotter services/netplane services/ipc/ring services/ipc clients/python cli)
export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy VIRTUAL_ENV="$VENV"
unset PYTHONPATH PYTHONHOME

# bootstrap_uv: install the pinned uv with pip, checked against its hash in requirements.txt.
bootstrap_uv() {
    awk '/^[a-z]/ { mine = /^uv==/ } mine' "$ROOT/requirements.txt" >"$ROOT/build/uv.txt"
    "$VENV/bin/python" -m pip install -q --require-hashes --no-deps -r "$ROOT/build/uv.txt"
}

# use_index_of_pip: a package index that the host's pip is told to use is uv's, too.
use_index_of_pip() {
    local index
    index="$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)"
    index="${PIP_INDEX_URL:-$index}"
    [[ -z "$index" ]] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
}

# install_pins: everything in requirements.txt, each file checked against its hash.
install_pins() {
    "$VENV/bin/uv" pip install --require-hashes --compile-bytecode -r "$ROOT/requirements.txt"
}

# install_packages: the packages of the workspace, editable, with nothing fetched.
install_packages() {
    local package flags=()
    for package in "${PACKAGES[@]}"; do flags+=(--editable "$ROOT/$package"); done
    "$VENV/bin/uv" pip install --offline --no-deps --no-build-isolation --reinstall "${flags[@]}"
    "$VENV/bin/uv" pip check
}

# precompile: bytecode of the editable sources, so that the first start is as fast as the next.
precompile() { "$VENV/bin/python" -m compileall -q "${PACKAGES[@]/#/$ROOT/}" -x '/(\.venv|build)/' || true; }

[[ -x "$PYTHON" ]] || fail "$PYTHON is missing" "run 'apt-get install python3 python3-venv'"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is older than 3.11" "use Debian 12 or newer"

pins="$(digest "$ROOT/requirements.txt" "${BASH_SOURCE[0]}")@$ROOT $("$PYTHON" -V)"
if fresh pins "$pins" && [[ -x "$VENV/bin/uv" ]]; then
    say "Python environment: pins present"
else
    say "Python environment: .venv from $PYTHON"
    [[ -x "$VENV/bin/python" ]] || "$PYTHON" -m venv "$VENV"
    use_index_of_pip
    logged "installing uv" "check the network and the Python package index" bootstrap_uv
    logged "installing $(grep -c '^[a-z].*==' "$ROOT/requirements.txt") pinned packages" \
        "check the network and the Python package index" install_pins
    done_with pins "$pins"
fi

members="$(cd "$ROOT" && digest "${PACKAGES[@]/%//pyproject.toml}" services/ipc/ring/native/*.[ch]) $pins"
if fresh members "$members" && [[ -x "$VENV/bin/aetherctl" ]]; then
    say "Workspace packages: present"
else
    say "Workspace packages: ${PACKAGES[*]}"
    logged "installing them editable" "read build/setup.log" install_packages
    done_with members "$members"
fi
precompile
