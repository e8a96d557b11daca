# SPDX-License-Identifier: Apache-2.0
"""The one view."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings  # type: ignore[import-not-found]  # of its own venv
from django.http import JsonResponse  # type: ignore[import-not-found]
from django.urls import path  # type: ignore[import-not-found]

from visits.models import Visit  # type: ignore[import-not-found]


def index(_: Any) -> Any:
    """Write the request down and answer how many there were."""
    visit = Visit.objects.create()
    memory = {
        "token": settings.SECRET_KEY,
        "count": visit.pk,
        "parent": os.getppid(),
        "edition": os.environ.get("EDITION", "1"),
    }
    return JsonResponse(memory)


urlpatterns = [path("", index)]
