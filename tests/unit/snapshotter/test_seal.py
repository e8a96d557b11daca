# SPDX-License-Identifier: Apache-2.0
"""What closes a sandbox off goes again, each part of it by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from aetherless_snapshotter import seal


def test_each_route_is_taken_away_though_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed first inside is still to be seen."""
    taken: list[object] = []

    def change(_: object, kind: int, half: object) -> None:
        if kind == seal._DELETE_ROUTE:
            taken.append(half)
            raise OSError("not taken away")

    monkeypatch.setattr(seal, "_change", change)
    with (
        pytest.raises(OSError, match="not taken away") as raised,
        seal.sealed(Path("/proc/self/ns/net")),
    ):
        raise ValueError("inside")
    assert taken == list(reversed(seal._HALVES))
    causes = []
    error: BaseException | None = raised.value
    while error is not None:
        causes.append(str(error))
        error = error.__context__
    assert causes[-1] == "inside"
