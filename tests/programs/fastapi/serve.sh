#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs app.py under uvicorn; LOOP chooses its event loop.
cd "$(dirname "$0")" || exit 1
exec bin/uvicorn app:app --host 127.0.0.1 --port "$PORT" --loop "${LOOP:-asyncio}"
