# SPDX-License-Identifier: Apache-2.0
"""The records come back from their file as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_netplane.records import EndpointRecord, Records, RouteRecord

if TYPE_CHECKING:
    from pathlib import Path


def test_records_round_trip(tmp_path: Path) -> None:
    """Every field is stored; look-ups find what belongs together."""
    endpoint = EndpointRecord(
        endpoint_id="f-r1-0",
        netns_path="/proc/77/ns/net",
        cookie=2**63,
        trigger_port=8080,
        slot=5,
        ifindex=42,
    )
    route = RouteRecord(port=8080, function_id="f", endpoint_id="f-r1-0", families=3)
    Records({"f-r1-0": endpoint}, {8080: route}).write(tmp_path / "netplane.json")
    back = Records.read(tmp_path / "netplane.json")
    assert back == Records({"f-r1-0": endpoint}, {8080: route})
    assert back.route_to("f-r1-0") == route
    assert back.route_to("g") is None
    assert back.endpoint_of_slot(5) == endpoint
    assert back.endpoint_of_slot(6) is None
    assert (endpoint.name, route.name) == ("endpoints/f-r1-0", "routes/8080")


def test_no_file_is_no_record(tmp_path: Path) -> None:
    """The first start finds nothing."""
    assert Records.read(tmp_path / "none.json") == Records()
