# SPDX-License-Identifier: Apache-2.0
"""Listing and watching the events of a real registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import event_pb2, function_pb2, registry_service_pb2
from aetherless_common.errors import InvalidArgument
from aetherless_common.pagination import encode_token
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.channels import TypedStream
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

WARNING = event_pb2.EVENT_SEVERITY_WARNING


@pytest.fixture
def deployed(registry: RegistryClient, spec: Spec) -> RegistryClient:
    """Give a registry with two functions deployed."""
    registry.apply(spec(), spec("other", trigger_port=8081))
    for name in ("hello", "other"):
        registry.deployed(name)
    wait_until(lambda: registry.reasons().count("DEPLOYED") == 2)
    return registry


def pages(registry: RegistryClient, **fields: Any) -> Iterator[event_pb2.Event]:
    """Yield the events of all pages."""
    request = registry_service_pb2.ListEventsRequest(**fields)
    while True:
        response = registry.stub.ListEvents(request)
        yield from response.events
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def watch(registry: RegistryClient, **fields: Any) -> TypedStream:
    """Begin a watch."""
    request = registry_service_pb2.WatchEventsRequest(**fields)
    stream: Any = registry.stub.WatchEvents(request, timeout=20)
    return stream  # type: ignore[no-any-return]


def test_an_event_says_what_happened_when_to_whom(deployed: RegistryClient) -> None:
    """Name, time, function, revision, severity, metadata."""
    event = deployed.events(function="functions/hello")[-1]
    assert event.name == f"events/{event.sequence}"
    assert (event.function, event.revision, event.reason) == ("functions/hello", 1, "DEPLOYED")
    assert event.severity == event_pb2.EVENT_SEVERITY_NORMAL
    assert event.metadata["port"] == "8080"
    assert event.time.seconds > 10**9


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_join_to_the_list(deployed: RegistryClient, *, newest_first: bool) -> None:
    """In both directions, whatever the pages' size."""
    whole = deployed.events(newest_first=newest_first)
    assert len(whole) == 4
    assert list(pages(deployed, page_size=1, newest_first=newest_first)) == whole
    assert list(pages(deployed, page_size=3, newest_first=newest_first)) == whole
    sequences = [each.sequence for each in whole]
    assert sequences == sorted(sequences, reverse=newest_first)


def test_a_token_belongs_to_its_list(deployed: RegistryClient) -> None:
    """One of the other direction, or of nobody, is refused."""
    request = registry_service_pb2.ListEventsRequest(page_size=1)
    token = deployed.stub.ListEvents(request).next_page_token
    long = encode_token("o" + "9" * 25)
    forged = ({"page_token": "x"}, {"page_token": long})
    for wrong in ({"page_token": token, "newest_first": True}, *forged):
        with pytest.raises(InvalidArgument) as raised:
            deployed.events(**wrong)
        assert raised.value.metadata["field"] == "page_token"


def test_warnings_alone(deployed: RegistryClient) -> None:
    """And those of one function; a function's name has its form."""
    assert deployed.events(min_severity=WARNING) == []
    assert deployed.reasons(function="functions/other") == ["DECLARED", "DEPLOYED"]
    with pytest.raises(InvalidArgument) as raised:
        deployed.events(function="other")
    assert raised.value.metadata["field"] == "function"


def test_a_watch_goes_on_where_a_list_ended(deployed: RegistryClient, spec: Spec) -> None:
    """Nothing is missing and nothing is told twice."""
    listed = deployed.stub.ListEvents(registry_service_pb2.ListEventsRequest())
    deployed.apply(spec("third", trigger_port=8082))
    stream = watch(deployed, start_sequence=listed.last_sequence + 1)
    told: list[event_pb2.Event] = []
    for response in stream:
        told += response.events
        assert response.sequence >= listed.last_sequence
        if len(told) == 2:
            break
    stream.cancel()
    assert [each.reason for each in told] == ["DECLARED", "DEPLOYED"]
    assert told[0].sequence == listed.last_sequence + 1


def test_a_watch_tells_only_what_is_wanted(deployed: RegistryClient, spec: Spec) -> None:
    """The first response comes at once, with where the stream is."""
    stream = watch(deployed, function="functions/third")
    first = next(stream)
    assert (first.sequence, len(first.events)) == (4, 0)
    deployed.apply(spec("fourth", trigger_port=8083), spec("third", trigger_port=8082))
    assert next(stream).events[0].function == "functions/third"
    stream.cancel()


def test_a_watch_from_the_beginning(deployed: RegistryClient) -> None:
    """Numbers begin with 1; a negative one is none."""
    with pytest.raises(InvalidArgument):
        next(watch(deployed, start_sequence=-1))
    stream = watch(deployed, start_sequence=1)
    assert len(next(stream).events) == 4
    stream.cancel()
