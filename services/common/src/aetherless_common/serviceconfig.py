# SPDX-License-Identifier: Apache-2.0
"""Deadlines and retries of each RPC, as the ``*_grpc_service_config.json`` beside it has them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def method_configs(service: str) -> list[dict[str, Any]]:
    """Return what the service's config says about its methods."""
    name = f"{service}_grpc_service_config.json"
    text = resources.files(f"aetherless.{service}.v1").joinpath(name).read_text()
    return list(json.loads(text)["methodConfig"])


def retry_config(service: str) -> str:
    """Return the config without the timeouts, for the channel option ``grpc.service_config``.

    grpcio 1.85 ends a call at a config's timeout up to two seconds early, and does not tell the
    server; so the client's interceptor sets the timeouts itself, as ``method_timeouts`` has them.
    """
    configs = [{k: v for k, v in c.items() if k != "timeout"} for c in method_configs(service)]
    return json.dumps({"methodConfig": configs})


def method_timeouts(service: str) -> dict[str, float]:
    """Return the deadline of each RPC that has one, in seconds."""
    timeouts: dict[str, float] = {}
    for config in method_configs(service):
        if "timeout" in config:
            seconds = float(config["timeout"].removesuffix("s"))
            timeouts |= {name["method"]: seconds for name in config["name"] if "method" in name}
    return timeouts


def full_service_name(service: str) -> str:
    """Return the gRPC name of a service: ``aetherless.<service>.v1.<Service>Service``."""
    return f"aetherless.{service}.v1.{service.capitalize()}Service"
