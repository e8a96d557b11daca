#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every step of set-up, in order. Each is idempotent; a second run takes seconds.
# One set-up at a time: the lock is held until this shell ends.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STEPS="$ROOT/deploy/setup"
"$STEPS/host.sh"

exec 9>"$ROOT/build/setup.lock"
flock -w 1800 9 || fail "another set-up holds build/setup.lock" "wait for it to end"

"$STEPS/packages.sh"
"$STEPS/criu.sh"
"$STEPS/python.sh"
"$STEPS/criu_images.sh"
"$STEPS/native.sh"
say "set up: .venv/bin/aetherctl"
