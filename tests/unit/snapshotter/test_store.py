# SPDX-License-Identifier: Apache-2.0
"""The snapshots on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_common.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from aetherless_snapshotter import errors
from aetherless_snapshotter.fingerprint import Fingerprint
from aetherless_snapshotter.hostfiles import HostFile
from aetherless_snapshotter.manifest import Manifest, sealed, unsealed
from aetherless_snapshotter.sandbox_spec import HeldFile
from aetherless_snapshotter.store import SnapshotStore
from aetherless_snapshotter.workload import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.snapshotter.v1 import instance_pb2

HOST = Fingerprint("6.18.0", "4.2.1", "x86_64", "GenuineTest", "avx sse")


LIBRARY = Path("/usr/bin/true").resolve()


def recorded() -> HostFile:
    """Return the record of a program of this host."""
    return HostFile.of(LIBRARY, program=True)


@pytest.fixture
def manifest(make_workload: Callable[..., instance_pb2.Workload]) -> Manifest:
    """Return a manifest without files."""
    snapshot = snapshot_pb2.Snapshot(name="snapshots/s", function_id="hello", revision=1)
    program = Program(("/bin/true",), {"A": "b"}, "/", ())
    return Manifest(
        snapshot,
        make_workload(),
        program,
        10000,
        HOST,
        {"tmp": "/tmp"},
        {str(LIBRARY): recorded()},
        (HeldFile("tmp", "log", 40),),
    )


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest) -> SnapshotStore:
    """Return a store with the one snapshot "s"."""
    store = SnapshotStore(tmp_path, HOST)
    publish(store, "s", manifest)
    return store


def publish(store: SnapshotStore, snapshot_id: str, manifest: Manifest) -> None:
    """Make a snapshot with an image, a layer and a link that leads outside."""
    staging = store.begin(snapshot_id)
    (staging / "images" / "core-1.img").write_bytes(b"core")
    layer = staging / "layers" / "tmp"
    layer.mkdir()
    (layer / "file").write_bytes(b"layer")
    (layer / "link").symlink_to("/etc/shadow")
    store.seal(snapshot_id, manifest)
    store.publish(snapshot_id)


def test_a_manifest_survives_being_written(store: SnapshotStore, manifest: Manifest) -> None:
    """All fields come back, and every regular file is recorded."""
    read = store.check("s")
    assert set(read.files) == {"images/core-1.img", "layers/tmp/file"}
    assert read.snapshot.size_bytes == 9
    assert replace(read, files={}, snapshot=manifest.snapshot) == manifest
    assert [one.snapshot.name for one in store.manifests()] == ["snapshots/s"]


def test_images_are_closed_to_writers(store: SnapshotStore) -> None:
    """The sandbox's ids read them; the folders above are for root alone."""
    images = store.images("s")
    assert images.stat().st_mode & 0o777 == 0o555
    assert (images / "core-1.img").stat().st_mode & 0o777 == 0o444
    assert store.path("s").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["images/core-1.img", "layers/tmp/file"])
def test_a_changed_file_is_corrupt(store: SnapshotStore, name: str) -> None:
    """The error names the file and both checksums."""
    path = store.path("s") / name
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"X")
    with pytest.raises(DataLoss) as caught:
        store.check("s")
    assert caught.value.reason == "SNAPSHOT_CORRUPT"
    assert caught.value.metadata["file"] == name
    assert caught.value.metadata["expected"] != caught.value.metadata["actual"]


def test_a_missing_file_is_corrupt(store: SnapshotStore) -> None:
    """A file that is gone is damage too."""
    (store.images("s") / "core-1.img").unlink()
    with pytest.raises(DataLoss):
        store.check("s")


def test_a_touched_file_is_hashed_once(store: SnapshotStore) -> None:
    """The same content under a new inode is fine, and its new record is kept."""
    path = store.path("s") / "layers" / "tmp" / "file"
    path.unlink()
    path.write_bytes(b"layer")
    store.check("s")
    assert store.manifest("s").files["layers/tmp/file"].inode == path.stat().st_ino


def test_an_unreadable_manifest_is_corrupt(store: SnapshotStore) -> None:
    """It is also left out of the list."""
    (store.path("s") / "manifest.json").write_text("{")
    with pytest.raises(DataLoss):
        store.manifest("s")
    assert store.manifests() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("kernel", "6.19.0"), ("criu", "4.3"), ("machine", "aarch64"), ("cpu", "Other")],
)
def test_another_host_is_incompatible(
    store: SnapshotStore, tmp_path: Path, field: str, value: str
) -> None:
    """The error says what differs, and both values."""
    assert store.check("s")
    other = SnapshotStore(tmp_path, replace(HOST, **{field: value}))
    with pytest.raises(FailedPrecondition) as caught:
        other.check("s")
    assert caught.value.reason == "SNAPSHOT_INCOMPATIBLE"
    assert caught.value.metadata["what"] == field
    assert caught.value.metadata["actual"] == value


@pytest.mark.parametrize(
    ("features", "expected", "actual"),
    [
        ("sse", "avx", "no avx"),
        ("amx avx sse", "no amx", "amx"),
        ("amx bmi sse", "avx", "amx bmi"),
    ],
)
def test_another_processor_is_told_by_what_differs(
    store: SnapshotStore, tmp_path: Path, features: str, expected: str, actual: str
) -> None:
    """Only the features that one has and the other has not are named."""
    assert store.check("s")
    with pytest.raises(FailedPrecondition) as caught:
        SnapshotStore(tmp_path, replace(HOST, features=features)).check("s")
    told = caught.value.metadata
    assert (told["what"], told["expected"], told["actual"]) == ("cpu features", expected, actual)


def test_a_changed_library_is_stale(store: SnapshotStore, manifest: Manifest) -> None:
    """The error names the file, and both sizes."""
    other = replace(recorded(), size=1, inode=1)
    publish(store, "old", replace(manifest, host_files={str(LIBRARY): other}))
    with pytest.raises(FailedPrecondition) as caught:
        store.check("old")
    assert caught.value.reason == "SNAPSHOT_STALE"
    assert caught.value.metadata["file"] == str(LIBRARY)
    assert caught.value.metadata["expected"] == "1 bytes"


@pytest.mark.parametrize("number", [1, 99])
def test_another_versions_manifest_is_incompatible(store: SnapshotStore, number: int) -> None:
    """It is left out of the list too; a snapshot of that name may be made anew."""
    path = store.path("s") / "manifest.json"
    content = {**unsealed(path.read_text()), "format": number}
    path.write_text(json.dumps(content) if number == 1 else sealed(content))
    with pytest.raises(FailedPrecondition) as caught:
        store.manifest("s")
    assert caught.value.reason == "SNAPSHOT_INCOMPATIBLE"
    assert caught.value.metadata["expected"] == str(number)
    assert store.manifests() == []


def test_a_trial_is_kept_beside_the_manifest(store: SnapshotStore, manifest: Manifest) -> None:
    """It is told with the snapshot, goes with it, and is not needed to read it."""
    measured = snapshot_pb2.Trial()
    measured.restores.add().FromMilliseconds(7)
    store.keep_trial("s", measured)
    assert store.check("s").snapshot.trial == measured
    assert store.manifests()[0].snapshot.trial == measured
    (store.path("s") / "trial.json").write_text("{")
    assert not store.manifest("s").snapshot.HasField("trial")
    store.keep_trial("s", measured)
    publish(store, "s", manifest)
    assert not store.manifest("s").snapshot.HasField("trial")


def test_only_complete_snapshots_are_seen(
    store: SnapshotStore, tmp_path: Path, manifest: Manifest
) -> None:
    """A snapshot in the making is invisible, and gone after a start of the service."""
    staging = store.begin("half")
    (staging / "images" / "core-1.img").write_bytes(b"core")
    store.seal("half", manifest)
    assert len(store.manifests()) == 1
    with pytest.raises(NotFound):
        store.manifest("half")
    SnapshotStore(tmp_path, HOST).clean()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


def test_publishing_again_replaces(store: SnapshotStore, manifest: Manifest) -> None:
    """A second snapshot of the same id takes the first one's place."""
    before = store.images("s").stat().st_ino
    publish(store, "s", manifest)
    assert store.images("s").stat().st_ino != before
    store.check("s")


def test_deletion(store: SnapshotStore, tmp_path: Path) -> None:
    """A deleted snapshot is gone; deleting it again is a typed error."""
    store.delete("s")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound) as caught:
        store.delete("s")
    assert caught.value.reason == "SNAPSHOT_NOT_FOUND"


def test_a_used_snapshot_is_aborted() -> None:
    """The error names the user."""
    error = errors.snapshot_in_use("s", "hello-r1-0")
    assert isinstance(error, Aborted)
    assert error.metadata["instance"] == "hello-r1-0"


@pytest.mark.root
def test_a_store_without_room_says_so(small: Path) -> None:
    """Where, how much is needed and how much is free."""
    store = SnapshotStore(small / "snapshots", HOST)
    store.require(1 << 19)
    with pytest.raises(ResourceExhausted) as refused:
        store.require(2 << 20)
    assert refused.value.reason == "STORAGE_FULL"
    assert refused.value.metadata["path"] == str(small / "snapshots")
    assert refused.value.metadata["neededBytes"] == str(2 << 20)
    assert int(refused.value.metadata["freeBytes"]) <= 1 << 20
    assert "snapshot_dir" in refused.value.remedy


@pytest.mark.parametrize("step", range(0, 100, 7))
def test_no_byte_of_a_manifest_changes_unseen(store: SnapshotStore, step: int) -> None:
    """What it says is as well guarded as the files it speaks of."""
    path = store.path("s") / "manifest.json"
    content = bytearray(path.read_bytes())
    content[len(content) * step // 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataLoss) as refused:
        store.manifest("s")
    assert refused.value.metadata["file"] == "manifest.json"


def test_a_glance_sees_what_was_touched(store: SnapshotStore) -> None:
    """Nothing is read while all looks as it did; what was touched is checked, and what is gone."""
    store.glance("s")
    image = store.images("s") / "core-1.img"
    image.chmod(0o600)
    store.glance("s")
    image.write_bytes(b"corE")
    with pytest.raises(DataLoss):
        store.glance("s")
    image.unlink()
    with pytest.raises(DataLoss):
        store.glance("s")


def test_a_condemned_snapshot_is_listed_and_refused(
    store: SnapshotStore, manifest: Manifest
) -> None:
    """Whose it was is known, and what was wrong with it is said again."""
    (store.path("s") / "manifest.json").write_text("{}")
    with pytest.raises(DataLoss) as refused:
        store.check("s")
    assert store.manifests() == []
    store.condemn("s", manifest.workload, refused.value)
    assert [each.snapshot.function_id for each in store.manifests()] == ["hello"]
    with pytest.raises(DataLoss) as again:
        store.check("s")
    assert again.value.metadata == refused.value.metadata


def test_a_sound_snapshot_is_not_condemned(store: SnapshotStore, manifest: Manifest) -> None:
    """A damaged file leaves the manifest as it is."""
    error = errors.snapshot_corrupt("s", "images/core-1.img", "a", "b")
    store.condemn("s", manifest.workload, error)
    assert store.check("s").files


def test_what_nobody_can_name_is_swept(store: SnapshotStore, manifest: Manifest) -> None:
    """A snapshot whose manifest can't be read goes as soon as nothing restores it."""
    publish(store, "t", manifest)
    (store.path("s") / "manifest.json").unlink()
    store.sweep({"s"})
    assert store.path("s").exists()
    store.sweep(())
    assert not store.path("s").exists()
    assert store.check("t").files
