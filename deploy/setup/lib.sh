# SPDX-License-Identifier: Apache-2.0
# Shared by the set-up steps: progress lines, failures with a remedy, stamps.


set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
PREFIX="$ROOT/.prefix/lib/aetherless"
STAMPS="$ROOT/build/stamps"
SETUP_LOG="$ROOT/build/setup.log"
export ROOT PREFIX
[[ "$EUID" -ne 0 ]] || mkdir -p "$PREFIX" "$STAMPS"

# say TEXT: one progress line.
say() { printf '==> %s\n' "$*"; }

# fail WHAT REMEDY: one line on stderr that names the missing thing and what to do, then exit 1.
fail() {
    printf 'setup: %s; remedy: %s\n' "$1" "$2" >&2
    exit 1
}

# digest FILE...: one hash over the contents of the files, in the order given.
digest() { cat -- "$@" | sha256sum | cut -d' ' -f1; }

# fresh STEP KEY: true when STEP was last finished with the same KEY.
fresh() { [[ -f "$STAMPS/$1" && "$(<"$STAMPS/$1")" == "$2" ]]; }

# done_with STEP KEY: remember that STEP is finished for KEY.
done_with() { printf '%s\n' "$2" >"$STAMPS/$1"; }

# logged WHAT REMEDY COMMAND...: run a long command with a dot every two seconds; its output goes
# to build/setup.log, and its last lines are shown when it fails.
logged() {
    local what="$1" remedy="$2" pid began=$SECONDS
    shift 2
    printf '    %s ' "$what"
    printf '\n### %s\n' "$what" >>"$SETUP_LOG"
    "$@" >>"$SETUP_LOG" 2>&1 </dev/null &
    pid=$!
    while [[ -d "/proc/$pid" ]] && ! wait_second "$pid"; do printf '.'; done
    if ! wait "$pid"; then
        printf ' failed\n'
        tail -n 25 "$SETUP_LOG" >&2
        fail "$what failed (see build/setup.log)" "$remedy"
    fi
    printf ' %ds\n' "$((SECONDS - began))"
}

# wait_second PID: wait up to two seconds; true when PID has ended.
wait_second() {
    local n
    for n in 1 2 3 4 5 6 7 8 9 10; do
        [[ -d "/proc/$1" ]] || return 0
        [[ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null || echo Z)" == Z ]] && return 0
        sleep 0.2
    done
    return 1
}
