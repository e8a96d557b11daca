# SPDX-License-Identifier: Apache-2.0
"""The project's settings: SQLite in the project's own folder."""

from __future__ import annotations

import secrets
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = secrets.token_hex(8)
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["visits"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "visits.urls"
WSGI_APPLICATION = "visits.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "visits.sqlite3",
        "CONN_MAX_AGE": None,  # a connection is open at the checkpoint
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
