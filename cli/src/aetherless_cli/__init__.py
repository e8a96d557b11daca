# SPDX-License-Identifier: Apache-2.0
"""Command line of Aetherless: aetherctl."""

from __future__ import annotations
