#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the programs that only the tests need and that this host does not have by other means.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# command:package; a program of any origin on PATH will do.
TOOLS=(
    go:golang-go java:default-jre-headless javac:default-jdk-headless node:nodejs npm:npm rustc:rustc cargo:cargo
    fish:fish zsh:zsh
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static
    redis-cli:redis-tools # the tests' own redis-server needs the libraries of this
)

missing=()
for tool in "${TOOLS[@]}"; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
[[ -e /usr/aarch64-linux-gnu/lib/libc.a ]] || missing+=(libc6-dev-arm64-cross)
node="$(readlink -f "$(command -v node)")"
[[ -n "$node" && -e "${node%/bin/*}/include/node/node_api.h" ]] || missing+=(libnode-dev)
if ((${#missing[@]})); then
    say "test programs: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    logged "apt-get update" "make Debian's package sources of this host work" apt-get -q update
    logged "apt-get install" "run 'apt-get install ${missing[*]}' by hand and read what it says" \
        apt-get -q -y --no-install-recommends install "${missing[@]}"
fi
