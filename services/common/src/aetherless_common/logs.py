# SPDX-License-Identifier: Apache-2.0
"""Structured logs: one JSON object per line on standard error, with the trace it belongs to."""

from __future__ import annotations

import logging
import os
import sys

import structlog

from aetherless_common import tracing

LEVELS = logging.getLevelNamesMapping()


def configure(service: str, level: str | None = None) -> None:
    """Log as ``service`` from ``level`` on; without one AETHER_LOG_LEVEL decides, else info.

    Raises:
        ValueError: there is no level of that name.
    """
    name = (level or os.environ.get("AETHER_LOG_LEVEL") or "info").upper()
    if name not in LEVELS:
        raise ValueError(f"unknown log level {name!r}")
    structlog.configure(
        processors=[
            _named(service),
            structlog.contextvars.merge_contextvars,
            _traced,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[name]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _named(service: str) -> structlog.typing.Processor:
    """Return the processor that says, on each line, who speaks."""

    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> object:
        event["service"] = service
        return event

    return add  # type: ignore[return-value]


def _traced(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Name the span in which the line was written, recorded here or by the caller."""
    span = tracing.current()
    if span.carrier:
        event["trace_id"], event["span_id"] = span.trace_id, span.span_id
    return event
