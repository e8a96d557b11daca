# SPDX-License-Identifier: Apache-2.0
"""Netplane service: endpoints, routes and eBPF programs."""

from __future__ import annotations
