# SPDX-License-Identifier: Apache-2.0
"""What is written down about a snapshot: what it is, of which host, and what each file holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_snapshotter import eager, files
from aetherless_snapshotter.fingerprint import Fingerprint
from aetherless_snapshotter.hostfiles import HostFile
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET, HeldFile
from aetherless_snapshotter.workload import Program

if TYPE_CHECKING:
    import os
    from pathlib import Path

FORMAT = 5
IMAGES = "images"
FIRST_SEALED = 5  # the first format with a checksum of its own


@dataclass(frozen=True)
class FileRecord:
    """One file of a snapshot: what it must hold, and by what a change is noticed cheaply."""

    sha256: str
    size: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Record the file at ``path``."""
        status = path.stat()
        return cls(files.content_sha256(path), status.st_size, status.st_ino, status.st_ctime_ns)

    def untouched(self, status: os.stat_result) -> bool:
        """Tell whether the file with this ``status`` is the very one that was recorded."""
        seen = (status.st_size, status.st_ino, status.st_ctime_ns)
        return seen == (self.size, self.inode, self.ctime_ns)


@dataclass(frozen=True)
class Manifest:
    """All that is known about a snapshot."""

    snapshot: snapshot_pb2.Snapshot
    workload: instance_pb2.Workload
    program: Program
    #: The root's process id inside the sandbox.
    root_pid: int
    fingerprint: Fingerprint
    #: The writable trees whose layers are kept: tag → path in the sandbox.
    trees: dict[str, str]
    #: The host's files that a restore maps or opens, by their paths, the same in the sandbox.
    host_files: dict[str, HostFile]
    #: The files whose inode numbers the program knows.
    held: tuple[HeldFile, ...] = ()
    files: dict[str, FileRecord] = field(default_factory=dict)
    #: What was wrong with the manifest in whose place this one is: file, expected, actual.
    condemned: dict[str, str] = field(default_factory=dict)

    @property
    def images_dir(self) -> str:
        """The images that a restore takes, as the sandbox sees them."""
        second = f"{IMAGES}/{eager.FOLDER}/"
        chosen = any(name.startswith(second) for name in self.files)
        return eager.TARGET if chosen else SNAPSHOT_TARGET

    def encode(self) -> str:
        """Return the manifest as JSON text; the trial is kept beside it."""
        snapshot = snapshot_pb2.Snapshot()
        snapshot.CopyFrom(self.snapshot)
        snapshot.ClearField("trial")
        return sealed(
            {
                "format": FORMAT,
                "snapshot": json_format.MessageToDict(snapshot),
                "workload": json_format.MessageToDict(self.workload),
                "program": self.program.encode(),
                "root_pid": self.root_pid,
                "fingerprint": asdict(self.fingerprint),
                "trees": self.trees,
                "host_files": {name: asdict(file) for name, file in self.host_files.items()},
                "held": [asdict(file) for file in self.held],
                "files": {name: asdict(record) for name, record in self.files.items()},
                "condemned": self.condemned,
            }
        )

    @classmethod
    def decode(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises:
            OtherFormatError: another version of this software wrote it.
            ValueError: it is no manifest.
        """
        raw = unsealed(text)
        if raw.get("format") != FORMAT:
            raise OtherFormatError(str(raw.get("format")))
        try:
            return cls(
                json_format.ParseDict(raw["snapshot"], snapshot_pb2.Snapshot()),
                json_format.ParseDict(raw["workload"], instance_pb2.Workload()),
                Program.decode(raw["program"]),
                int(raw["root_pid"]),
                Fingerprint(**raw["fingerprint"]),
                dict(raw["trees"]),
                {name: HostFile(**file) for name, file in raw["host_files"].items()},
                tuple(HeldFile(**file) for file in raw["held"]),
                {name: FileRecord(**record) for name, record in raw["files"].items()},
                dict(raw["condemned"]),
            )
        except (KeyError, TypeError, json_format.ParseError) as error:
            raise ValueError(str(error)) from error


class OtherFormatError(Exception):
    """A manifest of another version of this software; the text names its format."""


def sealed(content: dict[str, Any]) -> str:
    """Return a JSON object as text that tells whether it was damaged."""
    content = json.loads(json.dumps(content))  # as a reader will have it
    return json.dumps({**content, "sha256": _digest(content)}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """Return the JSON object in a sealed text.

    Raises:
        OtherFormatError: it was written before texts were sealed.
        ValueError: it is damaged.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of the text, not of a type
    format_number, told = content.get("format", FORMAT), content.pop("sha256", None)
    if told is None and format_number in range(1, FIRST_SEALED):
        raise OtherFormatError(str(format_number))
    if told != _digest(content):
        raise ValueError("its checksum is wrong")
    return content


def _digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
