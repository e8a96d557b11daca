#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build CRIU from Debian's source archive into the project's own prefix. The host's apt
# configuration stays as it is: this step has sources, lists and preferences of its own.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WORK="$ROOT/build/criu"
PINS="$ROOT/deploy/setup/criu.sha256"
RUNDIR=/dev/shm/aetherless-criu # a tmpfs: CRIU reads its kernel-feature cache there at every start
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_mirror: where this host's own sources have Debian's packages.
debian_mirror() {
    # shellcheck disable=SC2016 # apt expands these, not the shell
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}

# private_apt COMMAND...: apt-get with a configuration that only knows the source archive of sid,
# pinned so that nothing of it could ever be installed.
private_apt() {
    apt-get -q \
        -o Dir::Etc::sourcelist="$WORK/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences="$WORK/apt/preferences" -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$WORK/apt/lists" -o Dir::Cache="$WORK/apt/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# configure_apt: write the private configuration for private_apt.
configure_apt() {
    local mirror
    mirror="$(debian_mirror)"
    if [[ -z "$mirror" ]]; then # package lists were never read, as in a fresh container image
        logged "apt-get update" "make Debian's package sources of this host work" apt-get -q update
        mirror="$(debian_mirror)"
    fi
    [[ -n "$mirror" ]] || fail "no Debian mirror among this host's package sources" \
        "add Debian's main archive to /etc/apt/sources.list.d and run 'apt-get update'"
    mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial"
    printf 'deb-src [signed-by=%s] %s sid main\n' "$KEYRING" "$mirror" >"$WORK/apt/sources.list"
    printf 'Package: *\nPin: release a=unstable\nPin-Priority: -1\n' >"$WORK/apt/preferences"
}

# verified: true when the pinned archive lies in the build folder and its sha256 is right.
verified() { (cd "$WORK" && sha256sum --status --check --ignore-missing "$PINS" 2>/dev/null); }

# fetch: bring the pinned archive into the build folder.
fetch() {
    verified && return
    configure_apt
    logged "reading the source list of Debian sid" "check the network and Debian's mirror" \
        private_apt update
    cd "$WORK"
    logged "downloading CRIU's source" "check the network and Debian's mirror" \
        private_apt source --download-only --tar-only --only-source criu
    verified || fail "Debian's archive has $(ls criu_*.orig.tar.* 2>/dev/null || echo no CRIU source), not the pinned $(cut -d' ' -f3 "$PINS" | paste -sd' ')" \
        "put the pinned archive into build/criu/, or review the new version and record it in deploy/setup/criu.sha256"
}

# compile: build criu and put it, and the .proto files of its images, into the prefix.
compile() {
    local source="$WORK/source"
    rm -rf "$source" && mkdir -p "$source"
    tar -xf "$WORK/$(pinned_archive)" -C "$source" --strip-components=1
    logged "building CRIU" "install what build/setup.log names as missing" \
        make -C "$source" -j"$(nproc)" criu NO_GNUTLS=1 RUNDIR="$RUNDIR"
    install -m 0755 "$source/criu/criu" "$PREFIX/criu.new"
    mv -f "$PREFIX/criu.new" "$PREFIX/criu"
    rm -rf "$WORK/protos" && mkdir -p "$WORK/protos"
    cp "$source"/images/*.proto "$WORK/protos/"
}

# pinned_archive: the name of the recorded archive that is there.
pinned_archive() {
    cut -d' ' -f3 "$PINS" | while read -r name; do [[ -f "$WORK/$name" ]] && echo "$name" && break; done
}

mkdir -p "$WORK"
key="$(digest "$PINS" "${BASH_SOURCE[0]}")"
if fresh criu "$key" && [[ -x "$PREFIX/criu" && -d "$WORK/protos" ]]; then
    say "CRIU: present ($("$PREFIX/criu" --version | awk '/Version/ { print $2 }'))"
    exit 0
fi
say "CRIU: building it into .prefix"
fetch
compile
"$PREFIX/criu" --version | sed 's/^/    /'
done_with criu "$key"
