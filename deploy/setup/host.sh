#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Refuse a host that set-up cannot serve: one line for each missing thing, all of them at once.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

problems=0

# missing WHAT REMEDY: report one missing thing and go on.
missing() {
    printf 'setup: %s; remedy: %s\n' "$1" "$2" >&2
    problems=$((problems + 1))
}

# kernel_at_least MAJOR MINOR: compare with the running kernel.
kernel_at_least() {
    local major minor
    IFS=. read -r major minor _ < <(uname -r)
    ((major > $1 || (major == $1 && ${minor%%[!0-9]*} >= $2)))
}

[[ "$EUID" -eq 0 ]] || missing "not running as root" "run 'sudo make setup'"
[[ "$(uname -s)" == Linux ]] || missing "this is not Linux" "use a Linux host with kernel 6.6 or newer"
kernel_at_least 6 6 || missing "kernel $(uname -r) is older than 6.6" "install a newer kernel, on Debian 12 the one of backports"
[[ -r /sys/kernel/btf/vmlinux ]] || missing "the kernel has no BTF (/sys/kernel/btf/vmlinux)" "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y"
command -v apt-get >/dev/null || missing "apt-get is missing" "use Debian 12 or newer, or Ubuntu 24.04"
findmnt -n -t cgroup2 >/dev/null || missing "no cgroup v2 hierarchy is mounted" "boot with systemd's unified or hybrid hierarchy"
[[ "$(stat -f -c %T /dev/shm 2>/dev/null)" == tmpfs ]] || missing "/dev/shm is not a tmpfs" "mount -t tmpfs tmpfs /dev/shm"
((problems == 0)) || exit 1
