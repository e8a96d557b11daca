# SPDX-License-Identifier: Apache-2.0
"""The one table."""

from __future__ import annotations

from django.db import models  # type: ignore[import-not-found]  # of its own venv


class Visit(models.Model):  # type: ignore[misc]
    """One request that was answered."""

    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        """Return when it was."""
        return f"visit at {self.at}"
