# SPDX-License-Identifier: Apache-2.0
"""What the service writes down about an instance, so that a later process can adopt it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.settings import write_atomically
from aetherless_snapshotter.sandbox import Endpoint

if TYPE_CHECKING:
    from aetherless_snapshotter.instance import Instance

#: Beside the sandbox's own files in the instance's folder.
FILE_NAME = "description.json"


@dataclass(frozen=True)
class Description:
    """All of an instance that neither its sandbox nor the kernel knows."""

    workload: instance_pb2.Workload
    role: instance_pb2.InstanceRole.ValueType
    snapshot: str
    command: tuple[str, ...]
    create_time_ns: int
    #: The endpoint it was armed with; None before.
    endpoint: Endpoint | None = None

    @classmethod
    def of(cls, instance: Instance) -> Description:
        """Return the description of an instance that is not armed yet."""
        return cls(
            instance.workload,
            instance.role,
            instance.snapshot,
            instance.command,
            instance.create_time_ns,
        )

    def write(self, folder: Path) -> None:
        """Store the description in the instance's folder, making it (0700) when it is missing."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(
            {
                "workload": json_format.MessageToDict(self.workload),
                "role": instance_pb2.InstanceRole.Name(self.role),
                "snapshot": self.snapshot,
                "command": self.command,
                "create_time_ns": self.create_time_ns,
                "endpoint": _encode(self.endpoint),
            },
            indent=1,
        )
        write_atomically(folder / FILE_NAME, text)

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read the description in an instance's folder.

        Raises:
            OSError: there is none.
            ValueError: it is damaged.
        """
        raw = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        try:
            return cls(
                json_format.ParseDict(raw["workload"], instance_pb2.Workload()),
                instance_pb2.InstanceRole.Value(raw["role"]),
                raw["snapshot"],
                tuple(raw["command"]),
                int(raw["create_time_ns"]),
                _decode(raw["endpoint"]),
            )
        except (KeyError, TypeError, json_format.ParseError) as error:
            raise ValueError(f"{folder / FILE_NAME}: {error}") from error


def _encode(endpoint: Endpoint | None) -> dict[str, Any] | None:
    """Return an endpoint in types that JSON has."""
    if endpoint is None:
        return None
    return {**asdict(endpoint), "state_map": str(endpoint.state_map or "")}


def _decode(raw: dict[str, Any] | None) -> Endpoint | None:
    """Return the endpoint that ``_encode`` gave."""
    if raw is None:
        return None
    return Endpoint(**{**raw, "state_map": Path(raw["state_map"]) if raw["state_map"] else None})
