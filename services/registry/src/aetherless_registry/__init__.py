# SPDX-License-Identifier: Apache-2.0
"""Registry service: desired state of functions and the reconciler."""

from __future__ import annotations
