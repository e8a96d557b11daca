#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs nginx in a folder of its own, with a token of this start in its configuration.
set -e
cd "$(dirname "$0")"
mkdir work
token="$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')"
sed "s/@PORT@/$PORT/; s/@TOKEN@/$token/; s/@EDITION@/${EDITION:-1}/" nginx.conf.in >work/nginx.conf
exec usr/sbin/nginx -e stderr -p "$PWD/work" -c nginx.conf
