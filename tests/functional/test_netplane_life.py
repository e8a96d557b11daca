# SPDX-License-Identifier: Apache-2.0
"""The netplane's life: killed and started again, beside another one, and gone without a trace."""

from __future__ import annotations

import json
import shutil
import time
from ctypes import c_uint32
from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import netplane_service_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_netplane.layout import StateData
from aetherless_netplane.maps import BpfMap
from framework.networld import OUTSIDE_IPV4, Namespace, Netplane, World, tool, world
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT = 8080
REFUSED = "failed 7"
# Reads a packet without looking where it ends.
REFUSED_PROGRAM = """
#define SEC(name) __attribute__((section(name), used))
struct context { unsigned int words[19], data, data_end; };
const volatile char settings[32] SEC(".rodata.settings");
SEC("tc") int to_sandbox(struct context *skb)
{
	return settings[0] + *(volatile int *)(long)skb->data;
}
char license_text[] SEC("license") = "GPL";
"""
# Asks once a tenth of a second on one connection until its standard input ends.
KEEP_ALIVE = f"""
import select, socket, sys
s = socket.create_connection(("127.0.0.1", {PORT}), 10)
print("connected", flush=True)
asked = 0
while not select.select([sys.stdin], [], [], 0.1)[0]:
    s.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    assert s.recv(999).decode().split()[-2] == "f"
    asked += 1
print(asked)
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """Give a world of its own to a test."""
    with world(tmp_path) as made:
        yield made


def facts(host: Namespace) -> dict[str, str]:
    """Return what a netplane changes in a namespace."""
    sysctls = "ip_forward ip_local_reserved_ports conf/all/accept_redirects conf/lo/forwarding"
    return {
        "links": host.ip("-br", "link"),
        "addresses": host.ip("-br", "address"),
        "routes": host.ip("route") + host.ip("-6", "route"),
        "rules": host.run("nft", "list", "ruleset").stdout,
        **{s: host.run("cat", f"/proc/sys/net/ipv4/{s}").stdout for s in sysctls.split()},
    }


def test_a_killed_service_is_not_missed(alone: World) -> None:
    """Old and new connections go on while it is dead; what it counted, and knew, is there after."""
    alone.function("f", PORT)
    alone.get("127.0.0.1", PORT)
    child = alone.host.start("/usr/bin/python3", "-c", KEEP_ALIVE)
    before = alone.netplane.endpoints()
    alone.netplane.kill()
    assert alone.get("127.0.0.1", PORT).startswith("f ")
    assert alone.get("::1", PORT).startswith("f ")
    alone.netplane.start()
    assert alone.netplane.endpoints() == before
    assert alone.get("127.0.0.1", PORT).startswith("f ")
    asked = int(child.communicate(timeout=20)[0])
    stats = alone.netplane.stats(PORT)
    assert asked
    assert (stats.connections, stats.requests) == (5, 4 + asked)


def test_a_restart_loads_and_rewrites_nothing(alone: World) -> None:
    """The same programs stay attached, and the nftables table is not touched."""
    alone.function("f", PORT)
    pins = alone.netplane.settings.bpf_dir
    programs = sorted(p.name for p in pins.glob("programs-*"))
    alone.netplane.stop()
    alone.netplane.log.write_text("")
    alone.netplane.start()
    log = alone.netplane.log.read_text()
    assert "adopted" in log
    assert "loaded" not in log
    assert sorted(p.name for p in pins.glob("programs-*")) == programs


def test_new_programs_take_the_old_ones_places(alone: World, tmp_path: Path, prefix: Path) -> None:
    """After an upgrade a restart swaps the programs; connections and counters go on."""
    alone.function("f", PORT)
    alone.get("127.0.0.1", PORT)
    shutil.copytree(prefix / "bpf", tmp_path / "prefix" / "bpf")
    with (tmp_path / "prefix" / "bpf" / "translate.bpf.o").open("ab") as file:
        file.write(b"\0")  # another digest, the same programs
    alone.netplane.stop()
    alone.netplane.environment["AETHER_PREFIX"] = str(tmp_path / "prefix")
    alone.netplane.start()
    assert "BPF programs loaded" in alone.netplane.log.read_text()
    assert len(list(alone.netplane.settings.bpf_dir.glob("programs-*"))) == 1
    assert alone.get("127.0.0.1", PORT).startswith("f ")
    assert alone.netplane.stats(PORT).requests == 2


def test_what_was_half_done_is_undone(alone: World) -> None:
    """A link without a record, as a crash in AttachEndpoint leaves it, goes at the next start."""
    alone.function("f", PORT)
    alone.netplane.kill()
    stray = alone.netplane.settings.link_name(0x123)
    alone.host.ip("link", "add", stray, "type", "veth", "peer", "name", "strayed")
    alone.netplane.start()
    assert stray not in alone.host.ip("-br", "link")
    assert alone.get("127.0.0.1", PORT).startswith("f ")


def test_cleanup_leaves_nothing_and_needs_nobody(tmp_path: Path) -> None:
    """With the service killed, --cleanup puts everything back; twice is fine."""
    made = World(tmp_path)
    try:
        before = facts(made.host)
        made.netplane.start()
        made.function("f", PORT)
        assert facts(made.host) != before
        made.netplane.kill()
        made.netplane.cleanup()
        made.netplane.cleanup()
        assert facts(made.host) == before
        settings = made.netplane.settings
        assert not settings.bpf_dir.exists()
        assert not settings.host_changes_path.exists()
        assert sorted(p.name for p in settings.runtime_dir.iterdir()) == []
    finally:
        made.close()


def test_two_orchestrators_live_side_by_side(alone: World, tmp_path: Path) -> None:
    """Each has its own range and routes; when one goes, the other's way out stays."""
    before = facts(alone.host)["ip_forward"]
    alone.outside.serve("outside", "0.0.0.0:8000")
    first = alone.function("first", PORT)
    other = Netplane(tmp_path / "other", alone.host)
    try:
        other.start()
        with Namespace("sandbox") as second:
            other.attach("second", second, PORT + 1)
            second.serve("second", f"127.0.0.1:{PORT + 1}")
            other.route(PORT + 1, "second")
            with pytest.raises(FailedPrecondition, match="PORT_IN_USE"):
                other.route(PORT, "")
            assert alone.get("127.0.0.1", PORT).startswith("first ")
            assert alone.get("127.0.0.1", PORT + 1).startswith("second ")
            networks = {e.outer_ipv4.rpartition(".")[0] for e in other.endpoints()}
            assert not networks & {
                e.outer_ipv4.rpartition(".")[0] for e in alone.netplane.endpoints()
            }
            alone.netplane.stop()
            alone.netplane.cleanup()
            assert second.get(OUTSIDE_IPV4, 8000).startswith("outside ")
            assert alone.get("127.0.0.1", PORT + 1).startswith("second ")
            assert alone.get("127.0.0.1", PORT) == REFUSED
            assert first.ip("-br", "link", "show", "type", "veth") == ""
    finally:
        other.close()
    assert before == "1\n"
    assert facts(alone.host)["ip_forward"] == "0\n"


def test_a_range_in_use_is_refused(alone: World) -> None:
    """A foreign address or route in the orchestrator's range ends the start with a typed error."""
    route = next(line for line in alone.host.ip("route").splitlines() if "unreachable" in line)
    network = route.split()[1]
    alone.netplane.stop()
    alone.netplane.cleanup()
    alone.host.ip("route", "add", network, "dev", "uplink")
    ended = alone.netplane.fail()[-1]
    assert ended["reason"] == "ADDRESS_RANGE_IN_USE"
    assert ended["details"]["range"] == network
    assert ended["details"]["by"] == f"route {network} by uplink"
    assert ended["details"]["remedy"]
    alone.netplane.cleanup()
    assert network in alone.host.ip("route")
    alone.host.ip("route", "del", network, "dev", "uplink")


def test_a_refused_object_brings_the_verifiers_words(
    alone: World, tmp_path: Path, prefix: Path
) -> None:
    """BPF_LOAD_FAILED names the object, and says what libbpf or the kernel said."""
    alone.netplane.stop()
    alone.netplane.cleanup()
    shutil.copytree(prefix / "bpf", tmp_path / "prefix" / "bpf")
    source = tmp_path / "refused.c"
    source.write_text(REFUSED_PROGRAM)
    refused_object = tmp_path / "prefix" / "bpf" / "translate.bpf.o"
    tool("clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(refused_object))
    alone.netplane.environment["AETHER_PREFIX"] = str(tmp_path / "prefix")
    ended = alone.netplane.fail()[-1]
    assert ended["reason"] == "BPF_LOAD_FAILED"
    assert ended["details"]["object"] == "translate.bpf.o"
    assert "invalid access to packet" in ended["details"]["log"]


def test_a_dead_sandbox_refuses_and_is_forgotten(alone: World) -> None:
    """When a namespace dies its endpoint goes, its route refuses at once, and a detach is fine."""
    sandbox = alone.function("f", PORT)
    sandbox.close()
    wait_until(lambda: alone.netplane.endpoints() == [], "the endpoint is forgotten")
    assert alone.get("127.0.0.1", PORT) == REFUSED
    alone.netplane.detach("f")
    alone.function("g", PORT + 1)
    alone.netplane.kill()
    alone.host.ip("link", "delete", alone.netplane.settings.link_name(2))
    alone.netplane.start()
    assert alone.netplane.endpoints() == []
    assert alone.get("127.0.0.1", PORT + 1) == REFUSED


def test_a_wake_is_streamed(alone: World) -> None:
    """WatchTraffic tells who woke, when, and how long the first byte took."""
    alone.function("f", PORT)
    endpoint = alone.netplane.endpoints()[0]
    request = netplane_service_pb2.WatchTrafficRequest()
    stream = alone.netplane.stub.WatchTraffic(request, timeout=20)
    stream.initial_metadata()
    states = BpfMap(endpoint.state_map_path, c_uint32, StateData)
    states.put(c_uint32(endpoint.state_map_slot), StateData(state=1, generation=1))
    assert alone.netplane.endpoints()[0].state == 1
    alone.get("127.0.0.1", PORT)
    told = next(stream).first_answer
    stats = alone.netplane.stats(PORT)
    states.close()
    assert (told.endpoint, told.function_id) == ("endpoints/f", f"function-{PORT}")
    assert told.first_packet_time.ToMilliseconds() > 1_600_000_000_000
    assert 0 < told.first_byte.ToMicroseconds() < 5_000_000
    assert stats.answered_wakes == 1
    difference = stats.first_byte_p50.ToNanoseconds() - told.first_byte.ToNanoseconds()
    assert abs(difference) <= told.first_byte.ToNanoseconds() / 32 + 1024


def test_the_log_is_json(alone: World) -> None:
    """Every line of the service's log is one JSON object."""
    lines = alone.netplane.log.read_text().splitlines()
    assert {json.loads(line)["service"] for line in lines} == {"netplane"}


def test_killed_at_any_moment_of_its_start(tmp_path: Path) -> None:
    """However far it came, --cleanup puts everything back, and so does a start that goes on."""
    made = World(tmp_path)
    try:
        before = facts(made.host)
        for delay_ms in range(150, 600, 30):
            made.netplane.launch()
            time.sleep(delay_ms / 1000)
            made.netplane.kill()
            if delay_ms % 60:
                made.netplane.start().kill()
            made.netplane.cleanup()
            assert facts(made.host) == before, delay_ms
    finally:
        made.close()
