# SPDX-License-Identifier: Apache-2.0
"""Random generators that keep their state in user space, where a snapshot freezes it.

The kernel's own (getrandom(2), /dev/urandom) is always fresh.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Generator:
    """A random generator: the file names that tell of it, its own, and how to do without it."""

    pattern: re.Pattern[str]
    words: str
    remedy: str


_KNOWN = (
    Generator(
        re.compile(r"lib(crypto|ssl)[.-]"),
        "OpenSSL's generator",
        "take keys and tokens from the kernel (getrandom, /dev/urandom)",
    ),
    Generator(
        re.compile(r"lib(gnutls|gcrypt)[.-]"),
        "the generator of GnuTLS",
        "take keys and tokens from the kernel (getrandom, /dev/urandom)",
    ),
    Generator(
        re.compile(r"python3|libpython3|_random\."),
        "Python's random",
        "use os.urandom, secrets or random.SystemRandom, or seed it at the first request",
    ),
    Generator(
        re.compile(r"node(js)?$"),
        "Node's Math.random and crypto",
        "read keys, tokens and ids from /dev/urandom instead of randomBytes and randomUUID",
    ),
    Generator(
        re.compile(r"libjvm\."),
        "Java's Math.random",
        "use SecureRandom for what must differ, or make generators at the first request",
    ),
    Generator(
        re.compile(r"(ruby|php|perl)[0-9.]*$|lib(ruby|perl)[.-]"),
        "its interpreter's rand",
        "seed it at the first request (srand), or read /dev/urandom",
    ),
)


def among(names: Iterable[str]) -> list[Generator]:
    """Return the generators that the names of loaded files tell of."""
    loaded = set(names)
    return [each for each in _KNOWN if any(each.pattern.match(name) for name in loaded)]
