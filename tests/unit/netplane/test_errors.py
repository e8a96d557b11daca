# SPDX-License-Identifier: Apache-2.0
"""Each reason of the contract has a constructor and survives the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import error_reason_pb2
from aetherless_common.status import from_status, to_status
from aetherless_netplane import errors
from aetherless_netplane.libbpf import BpfError

if TYPE_CHECKING:
    from aetherless_common.errors import AetherlessError

MADE: list[AetherlessError] = [
    errors.internal(),
    errors.invalid_argument("route.port", "must be set"),
    errors.kernel_feature_missing("btf", "no BTF", "boot another kernel"),
    errors.bpf_load_failed("x.bpf.o", BpfError(22, "loading", "R9 !read_ok")),
    errors.bpf_attach_failed("connect4", "/sys/fs/cgroup", OSError(1, "Operation not permitted")),
    errors.bpf_map_full("endpoints", 1024),
    errors.address_range_in_use("198.18.8.0/22", "route 198.18.0.0/15 by eth0"),
    errors.port_in_use(8080, "nginx", 4711),
    errors.route_not_found("routes/8080"),
    errors.endpoint_not_found("endpoints/f"),
    errors.endpoint_exists("endpoints/f"),
    errors.endpoint_in_use("endpoints/f", "routes/8080"),
    errors.netns_unreachable("/proc/2/ns/net", 2),
    errors.link_failed("creating link ae1", 17),
    errors.watcher_too_slow(1024),
]


def test_every_reason_has_a_constructor() -> None:
    """The enum and the constructors agree."""
    names = {n.removeprefix("ERROR_REASON_") for n in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert {error.reason for error in MADE} == names - {"UNSPECIFIED"}


@pytest.mark.parametrize("error", MADE, ids=lambda error: error.reason)
def test_every_reason_survives_the_wire(error: AetherlessError) -> None:
    """Class, reason, message and metadata come back as they were."""
    back = from_status(to_status(error, "netplane.aetherless"))
    assert type(back) is type(error)
    assert (back.reason, back.message) == (error.reason, error.message)
    assert back.metadata == error.metadata
    assert back.domain == "netplane.aetherless"


def test_the_verifier_s_last_words_are_kept() -> None:
    """A long log is cut at its beginning: the reason stands at its end."""
    error = errors.bpf_load_failed("x.bpf.o", BpfError(13, "loading", "a" * 5000 + "the end"))
    assert error.metadata["log"].endswith("the end")
    assert len(error.metadata["log"]) == errors.LOG_TAIL
