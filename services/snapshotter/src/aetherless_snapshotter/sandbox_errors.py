# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a sandbox, with the parts a caller needs to decide."""

from __future__ import annotations


class SandboxError(Exception):
    """A sandbox could not do what was asked.

    Attributes:
        instance: the instance's id.
        step: what was being done, for example "create" or "arm".
        detail: the cause in one line, without the instance's name.
        errno: the kernel's error number, 0 when there is none.
    """

    def __init__(self, instance: str, step: str, detail: str, errno: int = 0) -> None:
        super().__init__(f"{instance}: {step}: {detail}")
        self.instance = instance
        self.step = step
        self.detail = detail
        self.errno = errno


class SandboxGoneError(SandboxError):
    """The sandbox's init does not live (any more); ``detail`` has its last words."""


class InFlightError(SandboxError):
    """An evict was refused, because a request is in flight; ``detail`` says what was seen."""


class WrongStateError(SandboxError):
    """The sandbox is not in a state in which this can be done; ``detail`` names its state."""


class CommandTimeoutError(SandboxError):
    """The init did not answer within the time a command may take."""
