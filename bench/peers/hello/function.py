# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  # a function's source, loaded by its path
"""The hello function of the functions framework for Python."""

from __future__ import annotations


def hello(_request: object) -> str:
    """Answer."""
    return "hello\n"
