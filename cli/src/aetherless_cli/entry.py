# SPDX-License-Identifier: Apache-2.0
"""Where ``aetherctl`` begins and ends: an interrupt ends it quietly at every moment.

What is imported before the first statement of ``main`` can still be interrupted with a traceback,
so it is in C, or loaded by Python itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums, which take 4 ms
import os
import sys

INTERRUPTED = 130
_heard: list[int] = []


def main() -> None:
    """Run the command line; before it runs and after it, an interrupt has nothing to undo."""
    if _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler:
        _run()  # whoever started it has it ignore interrupts
        return
    _signal.signal(_signal.SIGINT, _leave)
    import aetherless_cli.main  # noqa: F401  # it takes most of the time until a command runs

    try:
        _signal.signal(_signal.SIGINT, _interrupt)
        _run()
    except KeyboardInterrupt:  # right before what catches it, or right after
        sys.exit(INTERRUPTED)
    finally:
        _signal.signal(_signal.SIGINT, _leave)


def interrupted() -> bool:
    """Tell whether an interrupt came: code in C may have made another exception of it."""
    return bool(_heard)


def _run() -> None:
    from aetherless_cli.main import main as run

    run()


def _interrupt(number: int, _: object) -> None:
    _heard.append(number)
    raise KeyboardInterrupt


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
