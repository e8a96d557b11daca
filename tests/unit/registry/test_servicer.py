# SPDX-License-Identifier: Apache-2.0
"""The RPCs of a real registry: declaring, listing, watching, evicting and waking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import netplane_service_pb2, route_pb2
from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unavailable,
)
from aetherless_registry import catalog
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

W = function_pb2.FUNCTION_STATE_WARM_SNAPSHOT
R = function_pb2.FUNCTION_STATE_RUNNING


def warm(registry: RegistryClient, spec: Spec) -> function_pb2.Function:
    """Deploy hello and wait until it is armed."""
    registry.apply(spec())
    registry.deployed()
    wait_until(lambda: registry.get().state == W)
    return registry.get()


def test_all_faults_of_a_declaration_come_at_once(registry: RegistryClient, spec: Spec) -> None:
    """With the field each is in; nothing is stored."""
    with pytest.raises(InvalidArgument) as raised:
        registry.apply(spec("a b", memory_limit_mb=99999), spec("ok"))
    assert raised.value.reason == "CONFIG_INVALID"
    fields = [violation.field for violation in raised.value.violations]
    assert fields == [
        "functions[0].function_id",
        "functions[0].memory_limit_mb",
        "functions[1].trigger_port",
    ]
    assert raised.value.metadata["field"] == "functions[0].function_id"
    assert not registry.list().functions


def test_ports_are_exclusive(registry: RegistryClient, spec: Spec) -> None:
    """A port that another function is declared for is refused, with both names."""
    registry.apply(spec())
    with pytest.raises(FailedPrecondition) as raised:
        registry.apply(spec("other"))
    assert raised.value.reason == "PORT_IN_USE"
    assert raised.value.metadata["function"] == "hello"
    assert raised.value.domain == "registry.aetherless"


def test_a_repeated_request_gets_its_first_answer(registry: RegistryClient, spec: Spec) -> None:
    """The same id with another request is refused."""
    first = registry.apply(spec(), request_id="once")
    registry.deployed()
    assert registry.apply(spec(), request_id="once") == first
    with pytest.raises(InvalidArgument) as raised:
        registry.apply(spec(memory_limit_mb=64), request_id="once")
    assert raised.value.metadata["field"] == "request_id"


def test_prune_deletes_what_is_not_named(registry: RegistryClient, spec: Spec) -> None:
    """And an apply without it adds."""
    registry.apply(spec())
    registry.apply(spec("other", trigger_port=9090))
    assert len(registry.list().functions) == 2
    registry.apply(spec("other", trigger_port=9090), prune=True)
    registry.gone("hello")
    registry.deployed("other")


def test_a_function_being_deleted_is_left_alone(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Declaring, evicting or waking it is refused until it is gone."""
    registry.apply(spec())
    registry.deployed()
    host.faults["DeleteRoute"] += [Unavailable("BUSY", "x")] * 6
    registry.delete()
    for attempt in (lambda: registry.apply(spec()), registry.evict, registry.wake):
        with pytest.raises(Aborted) as raised:
            attempt()
        assert raised.value.reason == "OPERATION_IN_PROGRESS"
    assert registry.get().deleting
    registry.gone()


def test_an_etag_guards_a_delete(registry: RegistryClient, spec: Spec) -> None:
    """A stale one is refused, the present one is not."""
    function = warm(registry, spec)
    with pytest.raises(Aborted) as raised:
        registry.delete(etag="0")
    assert raised.value.reason == "ETAG_MISMATCH"
    assert raised.value.metadata["actual"] == function.etag
    registry.delete(etag=function.etag)
    registry.gone()


def test_unknown_functions_and_names(registry: RegistryClient) -> None:
    """Each RPC on one function says what is wrong with its name."""
    for attempt in (registry.get, registry.delete, registry.evict, registry.wake):
        with pytest.raises(NotFound) as missing:
            attempt("nobody")
        assert missing.value.reason == "FUNCTION_NOT_FOUND"
        with pytest.raises(InvalidArgument):
            attempt("")


def test_lists_come_in_pages(registry: RegistryClient, spec: Spec) -> None:
    """By name, with the revision they were read at."""
    applied = registry.apply(*[spec(f"f{n}", trigger_port=9000 + n) for n in range(3)])
    first = registry.list(page_size=2)
    second = registry.list(page_size=2, page_token=first.next_page_token)
    listed = [function.name for function in (*first.functions, *second.functions)]
    assert listed == ["functions/f0", "functions/f1", "functions/f2"]
    assert not second.next_page_token
    assert first.revision >= applied.revision
    with pytest.raises(InvalidArgument):
        registry.list(page_token="nonsense")  # noqa: S106  # no password


def test_a_watch_begins_with_what_is(registry: RegistryClient, spec: Spec) -> None:
    """Its first response is the present state, empty when there is none."""
    assert not registry.watch().events
    warm(registry, spec)
    watch = registry.watch()
    (event,) = watch.responses[0].events
    assert event.function == registry.get()
    assert watch.responses[0].revision == registry.list().revision


def test_a_watch_can_be_resumed_without_a_gap(registry: RegistryClient, spec: Spec) -> None:
    """Replayed from a revision, it tells what the first watch told, in the same order."""
    live = registry.watch()
    warm(registry, spec)
    registry.delete()
    registry.gone()
    live.first("DELETED")

    def kept(events: object) -> list[tuple[int, str, int, int]]:
        return [
            (e.type, e.function.etag, e.function.state, e.function.deploy_state)
            for e in events  # type: ignore[attr-defined]
            if e.type not in {3, 4}
        ]

    replayed = registry.watch(start_revision=1)
    wait_until(lambda: replayed.of("DELETED"))
    assert kept(replayed.events) == kept(live.events)
    etags = [int(event.function.etag) for event in replayed.events]
    assert etags == list(range(1, etags[-1] + 1))


def test_a_watch_of_one_function(registry: RegistryClient, spec: Spec) -> None:
    """Others are not told of; marks say how far it is all the same."""
    watch = registry.watch(name="functions/hello")
    registry.apply(spec("other", trigger_port=9090))
    registry.deployed("other")
    registry.apply(spec())
    assert watch.first("UPDATED").function.name == "functions/hello"
    assert {event.function.name for event in watch.events} == {"functions/hello"}


def test_compacted_revisions_are_refused(
    registry: RegistryClient, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the revision up to which they are gone."""
    monkeypatch.setattr(catalog, "KEEP_CHANGES", 2)
    monkeypatch.setattr(catalog, "COMPACT_EVERY", 5)
    warm(registry, spec)
    with pytest.raises(OutOfRange) as raised:
        registry.watch(start_revision=1)
    assert raised.value.reason == "REVISION_COMPACTED"
    compacted = int(raised.value.metadata["compactRevision"])
    assert registry.watch(start_revision=compacted + 1).events
    with pytest.raises(InvalidArgument):
        registry.watch(start_revision=-1)


def test_evict_and_wake(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """Both answer with the function as it is after them; repeated, they change nothing."""
    warm(registry, spec)
    function = registry.wake()
    assert function.state == R
    assert function.instances[0].state == "RUNNING"
    assert function.instances[0].wakes == 1
    assert function.instances[0].last_restore.ToMilliseconds() == 9
    assert (function.instances[0].root_pid, function.instances[0].sandbox_root_pid) == (4000, 7)
    assert registry.wake().instances[0].wakes == 1
    assert registry.evict().state == W
    assert registry.evict().state == W
    assert host.calls.count("EvictInstance") == 1


def test_evictions_are_answered_when_their_news_are_taken_over(
    registry: RegistryClient, spec: Spec
) -> None:
    """An instance is told as running once more, with its eviction counted, before it is armed."""
    warm(registry, spec)
    answered = [(registry.wake().state, registry.evict().state) for _ in range(20)]
    assert answered == [(R, W)] * 20


def test_what_the_snapshotter_refuses_is_told_as_it_is(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Reason, domain and metadata are the snapshotter's."""
    warm(registry, spec)
    limits = {"limitMs": 15, "tookMs": 40}
    host.faults["WakeInstance"].append(
        DeadlineExceeded("RESTORE_LATENCY_VIOLATION", "too late", limits)
    )
    with pytest.raises(DeadlineExceeded) as raised:
        registry.wake()
    assert raised.value.reason == "RESTORE_LATENCY_VIOLATION"
    assert raised.value.domain == "snapshotter.aetherless"
    assert raised.value.metadata["tookMs"] == "40"


def test_without_a_snapshotter_commands_are_refused(
    registry: RegistryClient, services: FakeServices, spec: Spec
) -> None:
    """With the service that is missing; reading goes on."""
    warm(registry, spec)
    services.stop("snapshotter")
    with pytest.raises(Unavailable) as raised:
        registry.wake()
    assert raised.value.reason == "PEER_UNREACHABLE"
    assert raised.value.metadata["service"] == "snapshotter"
    assert raised.value.domain == "registry.aetherless"
    assert registry.get().state == W


def test_nothing_to_wake(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """A function that nothing serves can't be moved by command."""
    host.foreign_ports.add(8080)
    registry.apply(spec())
    registry.failed()
    wait_until(lambda: registry.get().state == function_pb2.FUNCTION_STATE_UNINITIALIZED)
    for attempt in (registry.wake, registry.evict):
        with pytest.raises(FailedPrecondition) as raised:
            attempt()
        assert raised.value.reason == "INVALID_STATE_TRANSITION"
        assert raised.value.metadata["from"] == "UNINITIALIZED"


def test_a_wake_by_packet_is_told_with_its_first_byte(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The snapshotter's story and the netplane's are joined; the state follows."""
    warm(registry, spec)
    watch = registry.watch()
    now = time.time_ns()
    host.wake("hello-r1-0", instance_pb2.WAKE_CAUSE_PACKET, now)
    answer = route_pb2.FirstAnswer(endpoint="endpoints/hello-r1-0", function_id="hello")
    answer.first_packet_time.FromNanoseconds(now + 1_000_000)
    answer.first_byte.FromMilliseconds(12)
    host.answers.publish(netplane_service_pb2.WatchTrafficResponse(first_answer=answer))
    wake = watch.first("WAKE").wake
    assert (wake.cause, wake.client) == ("packet", "127.0.0.1:5")
    assert wake.first_byte.ToMilliseconds() == 12
    assert wake.restore_duration.ToMilliseconds() == 9
    wait_until(lambda: registry.get().state == R)
    assert registry.get().instances[0].last_wake_time.ToNanoseconds() == now
