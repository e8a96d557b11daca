# SPDX-License-Identifier: Apache-2.0
"""Deadlines and retries of each RPC, as the ``*_grpc_service_config.json`` beside it has them."""

from __future__ import annotations

import json
from importlib import resources


def service_config(service: str) -> str:
    """Return the service's config as JSON text, for the channel option ``grpc.service_config``."""
    name = f"{service}_grpc_service_config.json"
    return resources.files(f"aetherless.{service}.v1").joinpath(name).read_text()


def method_timeouts(service: str) -> dict[str, float]:
    """Return the deadline of each RPC that has one, in seconds."""
    timeouts: dict[str, float] = {}
    for config in json.loads(service_config(service))["methodConfig"]:
        if "timeout" in config:
            seconds = float(config["timeout"].removesuffix("s"))
            timeouts |= {name["method"]: seconds for name in config["name"] if "method" in name}
    return timeouts


def full_service_name(service: str) -> str:
    """Return the gRPC name of a service: ``aetherless.<service>.v1.<Service>Service``."""
    return f"aetherless.{service}.v1.{service.capitalize()}Service"
