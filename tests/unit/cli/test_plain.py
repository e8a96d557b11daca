# SPDX-License-Identifier: Apache-2.0
"""Messages as plain data."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from aetherless.registry.v1 import function_pb2
from aetherless_cli.plain import enum_word, milliseconds, to_plain


def test_names_are_the_contracts_and_numbers_stay_numbers() -> None:
    """As protobuf's JSON with the fields' own names, but 64-bit numbers are numbers."""
    function = function_pb2.Function(
        name="functions/a",
        spec=function_pb2.FunctionSpec(
            function_id="a", environment={"B": "2", "A": "1"}, timeout=Duration(seconds=1)
        ),
        state=function_pb2.FUNCTION_STATE_RUNNING,
        revision=1 << 40,
        instances=[function_pb2.InstanceStatus(instance="instances/a", wakes=2)],
    )
    plain = to_plain(function)
    assert plain["revision"] == 1 << 40
    assert plain["state"] == "FUNCTION_STATE_RUNNING"
    assert plain["spec"]["environment"] == {"A": "1", "B": "2"}
    assert plain["spec"]["timeout"] == "1s"
    assert plain["deploy_error"] is None
    assert plain["deleting"] is False
    assert plain["instances"][0]["wakes"] == 2
    assert plain["instances"][0]["last_restore"] is None


def test_words_and_milliseconds() -> None:
    """Enum values lose their prefix for people."""
    function = function_pb2.Function(state=function_pb2.FUNCTION_STATE_WARM_SNAPSHOT)
    assert enum_word(function, "state") == "WARM_SNAPSHOT"
    assert milliseconds(Duration(seconds=1, nanos=500_000)) == 1000.5
    assert str(milliseconds(Duration(seconds=2, nanos=529_074_844))) == "2529.074844"
