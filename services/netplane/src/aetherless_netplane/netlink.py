# SPDX-License-Identifier: Apache-2.0
"""pyroute2's netlink socket, named once: the library has no types of its own."""

from __future__ import annotations

from typing import Any, TypeAlias

import pyroute2

Netlink: TypeAlias = Any
IPRoute: Any = pyroute2.IPRoute  # type: ignore[attr-defined]  # re-exported without saying so
