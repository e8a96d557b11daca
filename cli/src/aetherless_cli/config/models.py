# SPDX-License-Identifier: Apache-2.0
"""The configuration's schema. Ranges and defaults are those of docs/configuration.md."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OUR_ENVIRONMENT = {
    "AETHER_SOCKET": "it names the readiness socket",
    "AETHER_TRIGGER_PORT": "it is trigger_port",
    "AETHER_FUNCTION_ID": "it is id",
    "PORT": "it is trigger_port",
}
MAX_VARIABLES = 1024
MAX_ENVIRONMENT = 128 << 10  # bytes: the kernel takes no longer string


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return _no_nul(path)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


def _environment_name(name: str) -> str:
    if not ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    if name in OUR_ENVIRONMENT:
        raise ValueError(f"is set by aetherless ({OUR_ENVIRONMENT[name]}); leave it out")
    return name


def _warmup_kind(value: object) -> str:
    return "mapping" if isinstance(value, dict | Warmup) else "word"


def _fits(variables: dict[str, str]) -> dict[str, str]:
    size = sum(len(f"{name}={value}".encode()) + 1 for name, value in variables.items())
    if len(variables) > MAX_VARIABLES or size > MAX_ENVIRONMENT:
        raise ValueError(
            f"must hold at most {MAX_VARIABLES} variables and {MAX_ENVIRONMENT} bytes,"
            f" holds {len(variables)} and {size}"
        )
    return variables


AbsolutePath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_absolute)]
AnyPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_no_nul)]
Text = Annotated[str, AfterValidator(_no_nul)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]


class Orchestrator(_Strict):
    """What holds for the whole orchestrator."""

    # A function's channel, per direction; bytes.
    shm_buffer_size: int = Field(default=4 << 20, ge=64 << 10, le=1 << 30)
    # Spare sandboxes that hold a snapshot, on the whole host.
    warm_pool_size: int = Field(default=10, ge=1, le=1000)
    # Strict; for functions that name none of their own.
    restore_timeout_ms: int = Field(default=15, ge=1, le=100_000)
    snapshot_dir: AbsolutePath = "/dev/shm/aetherless"  # noqa: S108 (a folder of ours, 0700)


class Warmup(_Strict):
    """The HTTP request that proves a handler answers."""

    path: str = Field(default="/", pattern=r"^/[^\s#]*$", max_length=2048)


AnyWarmup = Annotated[
    Annotated[Literal["http", "tcp", "none"], Tag("word")] | Annotated[Warmup, Tag("mapping")],
    Discriminator(_warmup_kind),
]


class FunctionConfig(_Strict):
    """One function."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    handler_path: AnyPath
    trigger_port: int = Field(ge=1, le=65535)
    memory_limit_mb: int = Field(default=128, ge=1, le=16384)
    timeout_ms: int = Field(default=30_000, ge=1, le=900_000)
    environment: Annotated[dict[EnvironmentName, Text], AfterValidator(_fits)] = Field(
        default_factory=dict
    )
    restore_timeout_ms: int | None = Field(default=None, ge=1, le=100_000)
    idle_after_ms: int = Field(default=60_000, ge=0, le=2_147_483_647)
    warmup: AnyWarmup = "http"
    root: AnyPath | None = None
    mounts: list[AbsolutePath] = Field(default_factory=list, max_length=64)


class Config(_Strict):
    """A whole configuration file."""

    orchestrator: Orchestrator = Field(default_factory=Orchestrator)
    functions: list[FunctionConfig] = Field(min_length=1)
