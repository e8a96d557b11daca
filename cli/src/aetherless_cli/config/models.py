# SPDX-License-Identifier: Apache-2.0
"""The configuration's schema. Ranges and defaults are those of docs/configuration.md."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ID = r"^[A-Za-z0-9_-]{1,64}$"
OUR_ENVIRONMENT = {
    "AETHER_CHANNEL": "it names the side socket of its channel",
    "AETHER_SOCKET": "it names the readiness socket",
    "AETHER_TRIGGER_PORT": "it is trigger_port",
    "AETHER_FUNCTION_ID": "it is id",
    "PORT": "it is trigger_port",
}
ID = r"^[A-Za-z0-9_-]{1,64}$"
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


def _power_of_two(number: int) -> int:
    if number > 0 and number & (number - 1):
        below = 1 << (number.bit_length() - 1)
        raise ValueError(f"must be a power of two, as {below} or {2 * below}, is {number}")
    return number


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


AbsolutePath = Annotated[
    str,
    Field(min_length=1, max_length=4096, json_schema_extra={"pattern": "^/"}),
    AfterValidator(_absolute),
]
AnyPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_no_nul)]
Text = Annotated[str, AfterValidator(_no_nul)]
PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]
FunctionId = Annotated[str, Field(pattern=ID)]
EnvironmentName = Annotated[
    str,
    Field(
        json_schema_extra={
            "pattern": f"^{ENVIRONMENT_NAME.pattern}$",
            "not": {"enum": list(OUR_ENVIRONMENT)},
        }
    ),
    AfterValidator(_environment_name),
]


class Orchestrator(_Strict):
    """What holds for the whole orchestrator."""

    shm_buffer_size: PowerOfTwo = Field(
        default=4 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="Bytes of a channel's ring, per direction; a power of two.",
    )
    warm_pool_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Spare sandboxes that hold a snapshot, on the whole host.",
    )
    restore_timeout_ms: int = Field(
        default=15,
        ge=1,
        le=100_000,
        description="The longest restore, from the wake to CRIU's answer, in milliseconds; strict:"
        " a later one is ended. For functions that name none of their own.",
    )
    snapshot_dir: AbsolutePath = Field(
        default="/dev/shm/aetherless",  # noqa: S108 (a folder of ours, 0700)
        description="Where snapshots lie; a tmpfs is what makes restores fast.",
    )


class Warmup(_Strict):
    """The HTTP request that proves a handler answers."""

    path: str = Field(
        default="/",
        pattern=r"^/[^\s#]*$",
        max_length=2048,
        description="The path of the GET; any status is an answer.",
    )


AnyWarmup = Annotated[
    Annotated[Literal["http", "tcp", "none"], Tag("word")] | Annotated[Warmup, Tag("mapping")],
    Discriminator(_warmup_kind),
]


class FunctionConfig(_Strict):
    """One function."""

    id: str = Field(
        pattern=ID,
        description="The function's name; unique in the file.",
    )
    handler_path: AnyPath = Field(
        description="The program. A .py file runs with Python, anything else is executed."
        " Relative to this file's folder, then to the current one.",
    )
    trigger_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The TCP port that clients call and that the program listens on; unique in"
        " the file. Left out, which needs ipc, it is called through its channel alone.",
    )
    memory_limit_mb: int = Field(
        default=128,
        ge=1,
        le=16384,
        description="The most memory of one instance, in mebibytes; more ends it.",
    )
    timeout_ms: int = Field(
        default=30_000,
        ge=1,
        le=900_000,
        description="Bounds the program's start at deploy, and how long a replaced revision may go"
        " on answering, in milliseconds.",
    )
    environment: Annotated[dict[EnvironmentName, Text], AfterValidator(_fits)] = Field(
        default_factory=dict,
        description="Further environment variables; values are text, so quote numbers, yes and no.",
        json_schema_extra={"additionalProperties": False},
    )
    restore_timeout_ms: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="The longest restore of this function, in milliseconds; left out, the"
        " orchestrator's.",
    )
    idle_after_ms: int = Field(
        default=60_000,
        ge=0,
        le=2_147_483_647,
        description="After this long without a connection the process ends, and the next call"
        " restores it, in milliseconds; 0 is never.",
    )
    warmup: AnyWarmup = Field(
        default="http",
        description="The request that must be answered before the checkpoint: http is a GET,"
        " tcp a connection; with none listening is enough, or with ipc serving the channel. Without"
        " a trigger_port it is none.",
    )
    root: AnyPath | None = Field(
        default=None,
        description="The folder that the program brings along; left out, the handler's own.",
    )
    mounts: list[AbsolutePath] = Field(
        default_factory=list,
        max_length=64,
        description="Further folders of the host that the program sees, read-only.",
    )
    capabilities: Literal["none", "container"] = Field(
        default="none",
        description="What the program may do inside its sandbox; container is what a master needs"
        " that drops to another user.",
    )
    ipc: bool = Field(
        default=False,
        description="Whether it is called through a channel of shared memory, beside its port if"
        " it has one; its program serves that with a client library.",
    )
    may_call: list[FunctionId] = Field(
        default_factory=list,
        max_length=64,
        description="The functions of the file that it may call through its channel.",
    )


class StageConfig(_Strict):
    """One stage of a pipeline."""

    function: str = Field(
        pattern=ID,
        description="The function; it needs ipc: true, and stands once in a pipeline.",
    )
    id: str | None = Field(
        default=None, pattern=ID, description="The stage's name; left out, the function's."
    )
    method: str = Field(
        default="",
        pattern=r"^[!-.0-~]{0,64}$",
        description="The method of its handler; left out, the default one.",
    )
    sources: list[str] | None = Field(
        default=None,
        alias="from",
        max_length=32,
        description="The stages whose results it takes, all of which stand before it, in the order"
        " in which it is handed them; left out, the stage before.",
    )


class PipelineConfig(_Strict):
    """Functions joined output to input."""

    id: str = Field(pattern=ID, description="The pipeline's name; unique in the file.")
    timeout_ms: int = Field(
        default=30_000,
        ge=1,
        le=900_000,
        description="How long a run may take whose caller names no time, in milliseconds.",
    )
    delivery: Literal["at-least-once", "at-most-once"] = Field(
        default="at-least-once",
        description="What becomes of a record when the stage that has it dies: it is handed to the"
        " stage again, or its run ends with STAGE_LOST.",
    )
    stages: list[StageConfig] = Field(
        min_length=1,
        max_length=32,
        description="The stages. The first takes what the caller gives, the last answers.",
    )


class Config(_Strict):
    """A whole configuration file."""

    orchestrator: Orchestrator = Field(
        default_factory=Orchestrator, description="What holds for the whole orchestrator."
    )
    functions: list[FunctionConfig] = Field(min_length=1, description="The functions.")
    pipelines: list[PipelineConfig] = Field(
        default_factory=list, max_length=256, description="Functions joined output to input."
    )
