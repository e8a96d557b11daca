# SPDX-License-Identifier: Apache-2.0
"""Signals as an exception: at once, never, or once what was made is known."""

from __future__ import annotations

import signal

import pytest

from aetherless_cli.interruption import (
    SIGNALS,
    Interrupted,
    held_back,
    interruptible,
    undisturbed,
)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts(number: signal.Signals) -> None:
    """At once, by its name; afterwards the handlers are as before."""
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_undisturbed_work_is_brought_to_its_end(number: signal.Signals) -> None:
    """The signal is not heard, in here or later."""
    with interruptible(), undisturbed():
        signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_held_back_comes_at_the_end(number: signal.Signals) -> None:
    """Once what was made is known, so that it can be removed."""
    made: list[str] = []

    def make() -> None:
        with held_back():
            signal.raise_signal(number)
            made.append("folder")

    with pytest.raises(Interrupted, match=number.name), interruptible():
        make()
    assert made == ["folder"]
