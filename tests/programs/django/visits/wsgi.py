# SPDX-License-Identifier: Apache-2.0
"""What gunicorn serves."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application  # type: ignore[import-not-found]  # its own venv

application = get_wsgi_application()
