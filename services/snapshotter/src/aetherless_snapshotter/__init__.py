# SPDX-License-Identifier: Apache-2.0
"""Snapshotter service: sandboxes, snapshots and instances."""

from __future__ import annotations
