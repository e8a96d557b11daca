# SPDX-License-Identifier: Apache-2.0
"""Peers that answer what nobody asked, or write what no ring has: nobody crashes or hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aetherless_common import errors
from framework.processes import wait_until

from .asking import admit, call, create, get

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("way", "dropped"),
    [("stranger", 1), ("short", 1), ("other-types", 0), ("twice", 1), ("short-call", 0)],
)
def test_wrong_answers(
    run_service: Any,
    stub: IpcServiceStub,
    serving_peer: Any,
    tmp_path: Path,
    way: str,
    dropped: int,
) -> None:
    """Ids that were not asked, records too short or of other types: only the right one counts."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "rogue", way)
        assert stub.Invoke(call()).data == b"good"
        assert stub.Invoke(call()).data == b"again"
        wait_until(lambda: get(stub).stats.dropped_answers == dropped, "the wrong ones are dropped")
        assert get(stub).generation == 1


def test_unknown_status(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """An answer whose status has no meaning is a failure of the handler."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "rogue", "status")
        with pytest.raises(errors.FailedPrecondition, match="status 99") as caught:
            stub.Invoke(call())
        assert caught.value.reason == "HANDLER_FAILED"


@pytest.mark.parametrize("way", ["index", "checksum", "closed"])
def test_damage_during_a_call(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path, way: str
) -> None:
    """The call ends with RING_CORRUPT; the peer is let go of and comes back with a new region."""
    with run_service() as service:
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "rogue", way)
        with pytest.raises(errors.DataLoss) as caught:
            stub.Invoke(call())
        assert caught.value.reason == "RING_CORRUPT"
        assert caught.value.metadata["instance"] == "f-r1-0"
        wait_until(lambda: get(stub).generation == 2, "the peer attaches anew")
        assert stub.Invoke(call()).data == b"again"
        assert get(stub).stats.corrupted == 1
        assert service.poll() is None


def test_damage_of_the_other_direction(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """An index that can't be is met when room is looked for; the calls go to the next region."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "rogue", "consumed")
        data = bytes(16000)
        ends: set[str] = set()
        while get(stub).generation == 1:
            try:
                ends.add(stub.Invoke(call(data=data, timeout=0.1)).data.decode())
            except errors.AetherlessError as error:
                ends.add(error.reason)
        # here is no snapshotter to ask while nobody is attached
        assert ends <= {
            "INVOCATION_TIMEOUT",
            "RING_CORRUPT",
            "RING_FULL",
            "PEER_UNREACHABLE",
            "again",
        }
        assert stub.Invoke(call()).data == b"again"
        assert (get(stub).generation, get(stub).stats.corrupted) == (2, 1)
