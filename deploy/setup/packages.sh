#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages of packages.txt that are missing, in one apt-get call.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LIST="$ROOT/deploy/setup/packages.txt"

# missing_packages: the names in packages.txt that dpkg does not have installed.
missing_packages() {
    local name
    grep -v '^#' "$LIST" | while read -r name; do
        [[ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" == installed ]] || echo "$name"
    done
}

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} == 0)); then
    say "Debian packages: all present"
    exit 0
fi
say "Debian packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
logged "apt-get update" "make Debian's package sources of this host work" \
    apt-get -q update
logged "apt-get install" "run 'apt-get install ${missing[*]}' by hand and read what it says" \
    apt-get -q -y --no-install-recommends install "${missing[@]}"
