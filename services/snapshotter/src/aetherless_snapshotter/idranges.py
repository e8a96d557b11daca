# SPDX-License-Identifier: Apache-2.0
"""One range of 65,536 host ids per function, kept over restarts.

Golden and clones of a function share a range, so files of a snapshot belong to the same host ids
in each of its sandboxes; two functions never share one.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_common.settings import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

#: The ids in one range: what a sandbox sees as 0..65535.
RANGE_SIZE = 65536
#: Above systemd's dynamic ranges (nspawn's end at 0x6FFF0000) and far above subuid's defaults.
FIRST_RANGE = 0x70000000 // RANGE_SIZE
#: The highest id range below 2^31, which some file systems take for negative.
LAST_RANGE = 0x7FFF0000 // RANGE_SIZE


@dataclass(frozen=True)
class IdRange:
    """A function's host ids: sandbox id ``n`` is host id ``first + n``."""

    first: int

    def host_id(self, sandbox_id: int) -> int:
        """Return the host's id of a sandbox's id."""
        return self.first + sandbox_id


class IdRanges:
    """The ranges given out, in one JSON file that maps function ids to first host ids.

    Several orchestrators on one host would give out the same ranges; ``offset`` (derived from the
    orchestrator id) moves where each begins to look.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._offset = offset
        self._lock = threading.Lock()

    def get(self, function_id: str) -> IdRange:
        """Return the function's range, choosing and storing one at the first call."""
        with self._lock:
            ranges = self._load()
            if function_id not in ranges:
                ranges[function_id] = self._free(set(ranges.values()))
                write_atomically(self._path, json.dumps(ranges, indent=1))
            return IdRange(ranges[function_id])

    def release(self, function_id: str) -> None:
        """Forget the function's range; unknown functions are ignored."""
        with self._lock:
            ranges = self._load()
            if ranges.pop(function_id, None) is not None:
                write_atomically(self._path, json.dumps(ranges, indent=1))

    def _load(self) -> dict[str, int]:
        """Read the file; absent means that nothing was given out."""
        if not self._path.exists():
            return {}
        return {str(key): int(value) for key, value in json.loads(self._path.read_text()).items()}

    def _free(self, taken: set[int]) -> int:
        """Return the first range from the offset on that no function has."""
        count = LAST_RANGE - FIRST_RANGE
        for step in range(count):
            first = (FIRST_RANGE + (self._offset + step) % count) * RANGE_SIZE
            if first not in taken:
                return first
        raise RuntimeError(f"all {count} id ranges are taken")
