# SPDX-License-Identifier: Apache-2.0
"""IPC service: shared-memory channels between functions."""

from __future__ import annotations
