# SPDX-License-Identifier: Apache-2.0
"""Runs app.py under gunicorn with two workers; the venv around this file has both."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gunicorn.app.wsgiapp import run  # type: ignore[import-untyped]  # of its own venv

if __name__ == "__main__":
    address = f"0.0.0.0:{os.environ['PORT']}"
    folder = str(Path(__file__).resolve().parent)
    sys.argv = ["gunicorn", "--workers", "2", "--preload", "--bind", address]
    sys.argv += ["--chdir", folder, "app:app"]
    run()
