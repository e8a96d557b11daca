#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs Server.class with whatever JVM is on PATH.
exec java -cp "$(dirname "$0")" Server
