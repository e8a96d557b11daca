# SPDX-License-Identifier: Apache-2.0
"""Shared library of the Aetherless services and command line."""

from __future__ import annotations
