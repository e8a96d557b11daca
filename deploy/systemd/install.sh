#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the systemd units for this checkout. Nothing is started or enabled.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
UNITS="${1:-/etc/systemd/system}"

install -d "$UNITS"
sed "s|@ROOT@|$ROOT|g" "$HERE/aetherless@.service" >"$UNITS/aetherless@.service"
install -m 0644 "$HERE/aetherless.target" "$UNITS/aetherless.target"
printf "units are in %s; next: systemctl daemon-reload && systemctl enable --now aetherless.target\n" "$UNITS"
