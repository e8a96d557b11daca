#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs redis, and an HTTP server in front of it.
cd "$(dirname "$0")" || exit 1
usr/bin/redis-server --bind 127.0.0.1 --port 6379 --save "" --dir /tmp &
exec /usr/bin/python3 front.py
