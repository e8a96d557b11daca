#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the tables, then serves the project under gunicorn with two workers.
set -e
cd "$(dirname "$0")"
export DJANGO_SETTINGS_MODULE=visits.settings PYTHONPATH=.
bin/python3 -m django migrate --run-syncdb --verbosity 0
exec bin/gunicorn --workers 2 --preload --bind "0.0.0.0:$PORT" visits.wsgi:application
