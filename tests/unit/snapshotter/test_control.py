# SPDX-License-Identifier: Apache-2.0
"""The lines that go between the service and an init."""

from __future__ import annotations

import pytest

from aetherless_snapshotter import control


@pytest.mark.parametrize(
    "value", ["", "plain", "a b", "100%", "%20", "\n\t\x00\x7f", "\u00fc=\u20ac", "k=v"]
)
def test_lines_carry_any_value(value: str) -> None:
    """What is written in a line is what is read from it."""
    line = control.write_line("verb", key=value, other_key=7)
    assert all("!" <= character <= "~" or character == " " for character in line)
    read = control.read_line(line)
    assert (read.verb, read.values) == ("verb", {"key": value, "other-key": "7"})
