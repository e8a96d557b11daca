# SPDX-License-Identifier: Apache-2.0
"""A Flask application that remembers something in each of its workers."""

from __future__ import annotations

import os
import secrets
from itertools import count

from flask import Flask, Response, jsonify  # type: ignore[import-not-found]  # of its own venv

TOKEN = secrets.token_hex(8)
COUNTER = count(1)
app = Flask(__name__)


@app.get("/")  # type: ignore[untyped-decorator]
def index() -> Response:
    """Count the request and answer what the process remembers."""
    return jsonify(token=TOKEN, count=next(COUNTER), pid=os.getpid(), parent=os.getppid())
