#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what only the benchmarks need: other projects' runtimes to measure beside ours, and the
# library that draws the plots. All but runc and the test programs lies in build/bench.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WORK="$ROOT/build/bench"
SOURCE="$ROOT/bench/peers"

if ! command -v runc >/dev/null; then
    say "benchmarks: installing runc"
    export DEBIAN_FRONTEND=noninteractive
    logged "apt-get update" "make Debian's package sources of this host work" apt-get -q update
    logged "apt-get install" "run 'apt-get install runc' by hand and read what it says" \
        apt-get -q -y --no-install-recommends install runc
fi

pins="$(digest "$SOURCE/requirements.txt" "$SOURCE/package.json" "${BASH_SOURCE[0]}")@$ROOT"
if fresh bench "$pins"; then
    say "benchmarks: other runtimes present"
    exit 0
fi
say "benchmarks: installing other runtimes into build/bench"
mkdir -p "$WORK"
[[ -x "$WORK/venv/bin/python" ]] || /usr/bin/python3 -m venv "$WORK/venv"
logged "installing Python packages" "check the network and the Python package index" \
    "$WORK/venv/bin/pip" install -q -r "$SOURCE/requirements.txt"
cp "$SOURCE/package.json" "$WORK/package.json"
logged "installing npm packages" "check the network and npm's registry" \
    npm --prefix "$WORK" install --silent --no-audit --no-fund --no-package-lock
done_with bench "$pins"
