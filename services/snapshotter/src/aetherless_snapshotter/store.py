# SPDX-License-Identifier: Apache-2.0
"""The snapshots on disk: one folder each, complete or not there, with a manifest of every file.

``<folder>/<snapshot>/`` holds ``images/`` (what CRIU reads, and maybe a second set, ``eager/``),
``layers/<tag>/`` (the golden's writable trees, raw overlay uppers), ``manifest.json`` and, once
restores were tried, ``trial.json`` (what they showed; without it they are tried again). A snapshot
in the making lies in ``.tmp-<snapshot>`` and becomes visible by one rename.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from google.protobuf import json_format

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_common.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted
from aetherless_common.settings import write_atomically
from aetherless_snapshotter import eager, errors, files, hostfiles, images
from aetherless_snapshotter.manifest import (
    FORMAT,
    IMAGES,
    FileRecord,
    Manifest,
    OtherFormatError,
    sealed,
    unsealed,
)
from aetherless_snapshotter.workload import Program

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from aetherless_snapshotter.fingerprint import Fingerprint
    from aetherless_snapshotter.hostfiles import HostFile

log = structlog.get_logger()
LAYERS = "layers"
_MANIFEST = "manifest.json"
_TRIAL = "trial.json"
_UNFINISHED = ".tmp-"


class SnapshotStore:
    """The snapshots of one orchestrator, below ``folder``."""

    def __init__(self, folder: Path, host: Fingerprint) -> None:
        self._folder = folder
        self._host = host
        self._lock = threading.Lock()
        # Of each snapshot that was found sound, how its files looked then.
        self._sound: dict[str, dict[str, tuple[int, int, int]]] = {}

    def clean(self) -> None:
        """Remove what was never finished; for the start of the service."""
        for leftover in self._folder.glob(f"{_UNFINISHED}*"):
            log.info("removed unfinished snapshot", folder=leftover.name)
            files.remove_tree(leftover)

    def require(self, needed: int) -> None:
        """See that there is room for so many bytes, and that the file system can hold snapshots.

        Raises:
            ResourceExhausted: STORAGE_FULL.
            FailedPrecondition: KERNEL_FEATURE_MISSING, it can't punch holes into files.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not files.punches_holes(self._folder):
            raise errors.no_holes(self._folder)
        if files.free_bytes(self._folder) < needed:
            raise self.full(needed)

    def full(self, needed: int) -> ResourceExhausted:
        """Return the error for a store that has no room for so many bytes."""
        return errors.storage_full(self._folder, needed, files.free_bytes(self._folder))

    def begin(self, snapshot_id: str) -> Path:
        """Make the folder in which a snapshot grows, and return it."""
        staging = self.staging(snapshot_id)
        files.remove_tree(staging)
        for folder in (staging, staging / IMAGES, staging / LAYERS):
            folder.mkdir(mode=0o700, parents=True)
        return staging

    def staging(self, snapshot_id: str) -> Path:
        """Return the folder in which a snapshot grows."""
        return self._folder / f"{_UNFINISHED}{snapshot_id}"

    def path(self, snapshot_id: str) -> Path:
        """Return a complete snapshot's folder."""
        return self._folder / snapshot_id

    def images(self, snapshot_id: str) -> Path:
        """Return the folder of a snapshot's images."""
        return self.path(snapshot_id) / IMAGES

    def layer(self, snapshot_id: str, tag: str) -> Path:
        """Return the folder of a snapshot's layer."""
        return self.path(snapshot_id) / LAYERS / tag

    def seal(self, snapshot_id: str, manifest: Manifest) -> Manifest:
        """Record every file of a growing snapshot in its manifest; returns it with its sizes."""
        staging = self.staging(snapshot_id)
        _close_to_writers(staging / IMAGES)
        records = {str(p.relative_to(staging)): FileRecord.of(p) for p in _regular_files(staging)}
        manifest = replace(manifest, files=records)
        manifest.snapshot.size_bytes = sum(files.disk_size(staging / name) for name in records)
        write_atomically(staging / _MANIFEST, manifest.encode())
        return manifest

    def publish(self, snapshot_id: str) -> None:
        """Make a sealed snapshot visible; one of that id that exists is replaced."""
        with self._lock:
            final = self.path(snapshot_id)
            old = self._folder / f"{_UNFINISHED}old-{snapshot_id}"
            files.remove_tree(old)
            if final.exists():
                final.rename(old)
            self.staging(snapshot_id).rename(final)
        files.remove_tree(old)

    def discard(self, snapshot_id: str) -> None:
        """Remove a snapshot that could not be finished."""
        files.remove_tree(self.staging(snapshot_id))

    def delete(self, snapshot_id: str) -> None:
        """Remove a complete snapshot.

        Raises:
            NotFound: SNAPSHOT_NOT_FOUND.
        """
        with self._lock:
            gone = self._folder / f"{_UNFINISHED}gone-{snapshot_id}"
            files.remove_tree(gone)
            try:
                self.path(snapshot_id).rename(gone)
            except FileNotFoundError:
                raise errors.snapshot_not_found(snapshot_id) from None
        files.remove_tree(gone)

    def manifest(self, snapshot_id: str) -> Manifest:
        """Return a snapshot's manifest, with its trial.

        Raises:
            NotFound: SNAPSHOT_NOT_FOUND.
            DataLoss: SNAPSHOT_CORRUPT, the manifest can't be read.
            FailedPrecondition: SNAPSHOT_INCOMPATIBLE, another version of this software wrote it.
        """
        try:
            text = (self.path(snapshot_id) / _MANIFEST).read_text(encoding="utf-8")
            manifest = Manifest.decode(text)
        except FileNotFoundError:
            if not self.path(snapshot_id).exists():
                raise errors.snapshot_not_found(snapshot_id) from None
            raise errors.snapshot_corrupt(snapshot_id, _MANIFEST, "a manifest", "none") from None
        except OtherFormatError as error:
            raise errors.snapshot_incompatible(
                snapshot_id, "manifest format", str(error), str(FORMAT)
            ) from None
        except (ValueError, OSError) as error:
            raise errors.snapshot_corrupt(
                snapshot_id, _MANIFEST, "a manifest", str(error)
            ) from None
        trial = self._trial(snapshot_id)
        if trial is not None:
            manifest.snapshot.trial.CopyFrom(trial)
        return manifest

    def keep_eager(self, snapshot_id: str) -> None:
        """Take up the second set of images that lies in a complete snapshot: restores take it."""
        manifest, folder = self.manifest(snapshot_id), self.path(snapshot_id)
        second = [*_regular_files(folder / IMAGES / eager.FOLDER)]
        records = {str(path.relative_to(folder)): FileRecord.of(path) for path in second}
        snapshot = manifest.snapshot
        before = snapshot.eager_bytes
        snapshot.eager_bytes = images.resident_bytes(folder / IMAGES / eager.FOLDER)
        snapshot.shared_bytes -= snapshot.eager_bytes - before
        snapshot.size_bytes += sum(files.disk_size(path) for path in second)
        manifest = replace(manifest, files={**manifest.files, **records})
        write_atomically(folder / _MANIFEST, manifest.encode())

    def keep_trial(self, snapshot_id: str, trial: snapshot_pb2.Trial) -> None:
        """Keep what trial restores of a complete snapshot showed."""
        write_atomically(self.path(snapshot_id) / _TRIAL, sealed(json_format.MessageToDict(trial)))

    def _trial(self, snapshot_id: str) -> snapshot_pb2.Trial | None:
        """Return what was kept of a snapshot's trial; None when nothing that can be read."""
        try:
            text = (self.path(snapshot_id) / _TRIAL).read_text(encoding="utf-8")
            return json_format.ParseDict(unsealed(text), snapshot_pb2.Trial())
        except FileNotFoundError:
            return None
        except (OtherFormatError, ValueError, json_format.ParseError) as error:
            log.warning("trial left out", snapshot=snapshot_id, error=str(error))
            return None

    def last_trial(self, function_id: str, but: str) -> snapshot_pb2.Trial | None:
        """Return the trial of a function's newest snapshot but ``but``, made by this host as it is.

        It says with which snapshot it was measured. Only snapshots whose ids begin with the
        function's are looked at; None when none of them was tried.
        """
        found = []
        for folder in self._folder.glob(f"{function_id}-*/"):
            with contextlib.suppress(DataLoss, FailedPrecondition, NotFound):
                manifest = self.manifest(folder.name)
                mine = manifest.workload.function_id == function_id and folder.name != but
                same_host = not manifest.fingerprint.differences(self._host)
                if mine and same_host and manifest.snapshot.HasField("trial"):
                    found.append(manifest.snapshot)
        newest = max(found, key=lambda each: each.revision, default=None)
        if newest is None:
            return None
        trial = newest.trial
        trial.measured_with = trial.measured_with or newest.name
        return trial

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all complete snapshots by name; unreadable ones are logged."""
        found = []
        for folder in sorted(self._folder.glob("[!.]*/")):
            try:
                found.append(self.manifest(folder.name))
            except (DataLoss, FailedPrecondition, NotFound) as error:
                log.warning("snapshot left out", snapshot=folder.name, error=str(error))
        return found

    def check_host(self, snapshot_id: str) -> Manifest:
        """Return the manifest after the host was checked against it.

        Raises:
            NotFound: SNAPSHOT_NOT_FOUND.
            FailedPrecondition: SNAPSHOT_INCOMPATIBLE or SNAPSHOT_STALE.
            DataLoss: SNAPSHOT_CORRUPT, the manifest can't be read.
        """
        manifest = self.manifest(snapshot_id)
        if manifest.condemned:
            raise errors.snapshot_corrupt(snapshot_id, **manifest.condemned)
        for what, expected, actual in manifest.fingerprint.differences(self._host):
            raise errors.snapshot_incompatible(snapshot_id, what, expected, actual)
        check_host_files(snapshot_id, manifest.host_files)
        return manifest

    def check(self, snapshot_id: str) -> Manifest:
        """Return the manifest after the host and every file were checked against it.

        A file is hashed only when its size, inode or change time differs from the record.

        Raises:
            NotFound: SNAPSHOT_NOT_FOUND.
            FailedPrecondition: SNAPSHOT_INCOMPATIBLE or SNAPSHOT_STALE.
            DataLoss: SNAPSHOT_CORRUPT.
        """
        self._sound.pop(snapshot_id, None)
        manifest = self.check_host(snapshot_id)
        moved = self._check_files(snapshot_id, manifest)
        if moved:
            manifest = replace(manifest, files={**manifest.files, **moved})
            write_atomically(self.path(snapshot_id) / _MANIFEST, manifest.encode())
        self._sound[snapshot_id] = self._looks(snapshot_id, (*manifest.files, _MANIFEST))
        return manifest

    def glance(self, snapshot_id: str) -> None:
        """Check a snapshot unless it looks as it did when it was last found sound.

        Raises:
            AetherlessError: as ``check``.
        """
        sound = self._sound.get(snapshot_id)
        if sound is None or sound != self._looks(snapshot_id, sound):
            self.check(snapshot_id)

    def _looks(self, snapshot_id: str, names: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """Return by what a change of each file is noticed; files that are gone are left out."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(self.path(snapshot_id) / name)
                found[name] = (status.st_size, status.st_ino, status.st_ctime_ns)
        return found

    def condemn(self, snapshot_id: str, workload: instance_pb2.Workload, error: DataLoss) -> None:
        """Put a manifest in the place of one that can't be read: whose it was, and what is wrong.

        So the snapshot is still listed and deleted, and each use of it refused as this one was.
        """
        try:
            self.manifest(snapshot_id)
        except DataLoss:
            snapshot = snapshot_pb2.Snapshot(
                name=f"snapshots/{snapshot_id}",
                function_id=workload.function_id,
                revision=workload.revision,
                listen_families=snapshot_pb2.LISTEN_FAMILIES_DUAL,  # which they were is lost
            )
            program = Program((), {}, "/", ())
            condemned = {key: error.metadata[key] for key in ("file", "expected", "actual")}
            manifest = Manifest(
                snapshot, workload, program, 0, self._host, {}, {}, (), {}, condemned
            )
            write_atomically(self.path(snapshot_id) / _MANIFEST, manifest.encode())

    def sweep(self, used: Collection[str]) -> None:
        """Remove snapshots that can't be read, but for those in use: nobody will name them."""
        for folder in sorted(self._folder.glob("[!.]*/")):
            try:
                self.manifest(folder.name)
            except DataLoss as error:
                if folder.name not in used:
                    log.warning("snapshot removed", snapshot=folder.name, error=str(error))
                    self.delete(folder.name)
            except (FailedPrecondition, NotFound):
                continue

    def made_of(self, workload: instance_pb2.Workload, snapshot_id: str) -> Manifest | None:
        """Return the complete and sound snapshot of that id, when it is of this workload.

        One that this host can't use any more counts as none: it is made anew.

        Raises:
            DataLoss: SNAPSHOT_CORRUPT.
        """
        try:
            manifest = self.check(snapshot_id)
        except NotFound:
            return None
        except FailedPrecondition as error:
            log.info("snapshot is made anew", snapshot=snapshot_id, error=str(error))
            return None
        return manifest if manifest.workload == workload else None

    def _check_files(self, snapshot_id: str, manifest: Manifest) -> dict[str, FileRecord]:
        """Check each file; returns new records of files that only moved (a copied snapshot)."""
        moved = {}
        for name, record in manifest.files.items():
            path = self.path(snapshot_id) / name
            try:
                if record.untouched(path.lstat()):
                    continue
                actual = FileRecord.of(path)
            except FileNotFoundError:
                raise errors.snapshot_corrupt(snapshot_id, name, record.sha256, "none") from None
            except OSError as error:
                raise errors.snapshot_corrupt(
                    snapshot_id, name, record.sha256, error.strerror or str(error)
                ) from None
            if actual.sha256 != record.sha256:
                raise errors.snapshot_corrupt(snapshot_id, name, record.sha256, actual.sha256)
            moved[name] = actual
        return moved


def check_host_files(snapshot_id: str, files: dict[str, HostFile]) -> None:
    """Refuse a snapshot that relies on a file of the host which is not what it was.

    Raises:
        FailedPrecondition: SNAPSHOT_STALE.
    """
    for name, expected, actual in hostfiles.changes(files):
        raise errors.snapshot_stale(snapshot_id, name, expected, actual)


def _regular_files(folder: Path) -> Iterator[Path]:
    """Yield all regular files below ``folder``, links not followed, in order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _close_to_writers(folder: Path) -> None:
    """Make the images readable for the sandbox's ids and writable for nobody.

    The folders above are 0700, so on the host only root gets at them; the sandbox sees just this
    one folder, as a read-only mount.
    """
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
