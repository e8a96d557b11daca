# SPDX-License-Identifier: Apache-2.0
"""The ring in pure Python: what every other implementation is held against.

It does the same steps in the same order as ``native/ring.h``, plainly. Python has no fences, so a
side that fell asleep in the very moment of a change is woken by its own slice of LONGEST_SLEEP;
everything else is the same.
"""

from __future__ import annotations

from aetherless_ring.consumer import Consumer
from aetherless_ring.producer import Producer

__all__ = ["Consumer", "Producer"]
