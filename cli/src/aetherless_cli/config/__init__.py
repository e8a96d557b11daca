# SPDX-License-Identifier: Apache-2.0
"""Reads a configuration file and says everything that is wrong with it at once."""

from __future__ import annotations

from aetherless_cli.config.load import load
from aetherless_cli.config.models import (
    Config,
    FunctionConfig,
    Orchestrator,
    PipelineConfig,
    StageConfig,
    Warmup,
)
from aetherless_cli.config.pipelines import stages_of
from aetherless_cli.config.violation import ConfigError, Violation

__all__ = [
    "Config",
    "ConfigError",
    "FunctionConfig",
    "Orchestrator",
    "PipelineConfig",
    "StageConfig",
    "Violation",
    "Warmup",
    "load",
    "stages_of",
]
