#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build what the kernel runs and install it into the prefix: the BPF objects and the sandbox init.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# sources FOLDER: the tracked kinds of files that its build reads, in a fixed order.
sources() {
    find "$1" -path '*/build' -prune -o -type f \
        \( -name '*.c' -o -name '*.h' -o -name Makefile \) ! -name vmlinux.h -print | LC_ALL=C sort
}

# native STEP FOLDER RESULT...: make FOLDER and install its results when a source changed.
native() {
    local step="$1" folder="$ROOT/$2" target="$3" key files
    [[ -d "$folder" ]] || return 0
    [[ -f "$folder/Makefile" ]] || fail "$2 has no Makefile" "restore it from version control"
    mapfile -t files < <(sources "$folder")
    key="$(digest "${files[@]}") $(uname -r) $("${CC:-cc}" -dumpfullversion) $(clang --version | head -n 1)"
    if fresh "$step" "$key" && compgen -G "$PREFIX/$target" >/dev/null; then
        say "$step: present"
        return
    fi
    say "$step"
    logged "building $2" "read build/setup.log" make -C "$folder"
    "install_$step" "$folder"
    done_with "$step" "$key"
}

# install_atomically FILE FOLDER MODE: put a file there in one step, so that no reader sees half.
install_atomically() {
    mkdir -p "$2"
    install -m "$3" "$1" "$2/.$(basename "$1").new"
    mv -f "$2/.$(basename "$1").new" "$2/$(basename "$1")"
}

install_bpf() {
    local object objects
    mapfile -t objects < <(find "$1/build" -name '*.bpf.o' | LC_ALL=C sort)
    ((${#objects[@]})) || fail "the build of bpf made no object" "read build/setup.log"
    for object in "${objects[@]}"; do install_atomically "$object" "$PREFIX/bpf" 0644; done
}

install_init() {
    local binary
    binary="$(find "$1" -type f -name aether-init -perm -u+x | head -n 1)"
    [[ -n "$binary" ]] || fail "the build of the sandbox init made no aether-init" "read build/setup.log"
    install_atomically "$binary" "$PREFIX" 0755
}

native bpf bpf 'bpf/*.bpf.o'
native init services/snapshotter/init aether-init
