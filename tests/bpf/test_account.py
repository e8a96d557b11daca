# SPDX-License-Identifier: Apache-2.0
"""What the programs count, and the stamps of a wake, packet by packet."""

from __future__ import annotations

import time
from ctypes import c_uint32
from typing import TYPE_CHECKING

import pytest

from aetherless_netplane.addresses import INNER_IPV4, OuterRange
from aetherless_netplane.histogram import quantile_ns
from aetherless_netplane.layout import FirstAnswerData, StateData
from aetherless_netplane.libbpf import RingReader
from framework import packets
from framework.packets import ACK, FIN, OUTWARDS, RST, SYN, TCP, frame, ipv4

if TYPE_CHECKING:
    from framework.bpfkernel import Kernel

OUTER = OuterRange(5)
CLIENT, MINE, INNER = str(OUTER.host_ipv4), str(OUTER.ipv4_of(2)), str(INNER_IPV4)
PORT, SLOT = 8080, 2
ARMED, RUNNING = 1, 3
pytestmark = pytest.mark.root


class Conversation:
    """One client's connection with the function.

    Arguments:
        kernel: Runs the programs.
        client_port: The client's port.
    """

    def __init__(self, kernel: Kernel, client_port: int = 40000) -> None:
        self.kernel = kernel
        self.client_port = client_port
        self.asked = self.answered = 1000

    def ask(self, payload: bytes = b"", flags: int = ACK, sequence: int | None = None) -> None:
        """Send a packet from the client, the next one unless a sequence number is given."""
        number = self.asked if sequence is None else sequence
        self.asked = number + len(payload) + bool(flags & SYN)
        ports = (self.client_port, PORT)
        segment = packets.tcp(CLIENT, MINE, ports, flags=flags, sequence=number, payload=payload)
        self.kernel.run("to_sandbox", frame(ipv4(CLIENT, MINE, TCP, segment)))

    def answer(self, payload: bytes = b"", flags: int = ACK, sequence: int | None = None) -> None:
        """Send a packet from the function, the next one unless a sequence number is given."""
        number = self.answered if sequence is None else sequence
        self.answered = number + len(payload) + bool(flags & SYN)
        ports = (PORT, self.client_port)
        segment = packets.tcp(INNER, CLIENT, ports, flags=flags, sequence=number, payload=payload)
        self.kernel.run("from_sandbox", frame(ipv4(INNER, CLIENT, TCP, segment), OUTWARDS))


def counted(kernel: Kernel) -> dict[str, int]:
    """Return the counters that are not zero."""
    totals = kernel.tables.totals(PORT)
    values = {name: getattr(totals, name) for name, _ in totals._fields_}
    return {name: value for name, value in values.items() if value}


def publish(kernel: Kernel, state: int) -> None:
    """Do what an init does when its state changes."""
    kernel.tables.states.put(c_uint32(SLOT), StateData(state=state, generation=7))


def test_one_request_is_one_connection_and_one_turn(kernel: Kernel) -> None:
    """A request in two packets and an answer in two are one request; payload bytes are summed."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN, sequence=1)
    talk.answer(flags=SYN | ACK)
    talk.ask()
    talk.ask(b"GET / ")
    talk.ask(b"HTTP/1.1\r\n\r\n")
    talk.answer(b"HTTP/1.1 200 OK\r\n")
    talk.answer(b"\r\nhello")
    talk.ask(flags=FIN | ACK)
    expected = {"connections": 1, "requests": 1, "received_bytes": 18, "sent_bytes": 24}
    assert counted(kernel) == expected


def test_a_kept_connection_counts_each_turn(kernel: Kernel) -> None:
    """Five questions and answers on one connection are five requests."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN)
    for _ in range(5):
        talk.ask(b"?")
        talk.answer(b"!!")
    found = counted(kernel)
    assert (found["connections"], found["requests"]) == (1, 5)


def test_a_repeated_syn_is_no_second_connection(kernel: Kernel) -> None:
    """A retransmission has the same sequence number; a new connection of the port has another."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN, sequence=5)
    talk.ask(flags=SYN, sequence=5)
    assert counted(kernel) == {"connections": 1}
    talk.ask(flags=SYN, sequence=900)
    assert counted(kernel) == {"connections": 2}


def test_repetitions_and_overtaking_count_once(kernel: Kernel) -> None:
    """Bytes that come twice, or in another order, are counted as the receiver reads them."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN, sequence=0xFFFFFFFE)  # the numbers wrap around in the first request
    talk.answer(flags=SYN | ACK, sequence=500)
    talk.ask(b"12345")
    talk.ask(b"12345", sequence=0xFFFFFFFF)
    talk.answer(b"cd", sequence=503)
    talk.answer(b"ab", sequence=501)
    talk.answer(b"cdef", sequence=503)
    expected = {"connections": 1, "requests": 1, "received_bytes": 5, "sent_bytes": 6}
    assert counted(kernel) == expected


def test_a_late_repetition_is_no_request(kernel: Kernel) -> None:
    """A question that arrives again after its answer is not a second one."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN, sequence=1)
    talk.ask(b"?")
    talk.answer(b"!")
    talk.ask(b"?", sequence=2)
    assert counted(kernel)["requests"] == 1


def test_a_reset_is_counted_once_per_connection(kernel: Kernel) -> None:
    """Both sides reset the same connection; another one is reset by the function."""
    first, second = Conversation(kernel, 40001), Conversation(kernel, 40002)
    for talk in (first, second):
        talk.ask(flags=SYN)
    first.ask(flags=RST)
    first.answer(flags=RST | ACK)
    second.answer(flags=RST | ACK)
    assert counted(kernel)["resets"] == 2


def test_a_connection_that_was_forgotten_goes_on(kernel: Kernel) -> None:
    """With no entry for it, a request is still a request, but no new connection."""
    talk = Conversation(kernel)
    talk.ask(b"?")
    assert counted(kernel) == {"requests": 1, "received_bytes": 1}


def test_without_a_route_nothing_is_counted(kernel: Kernel) -> None:
    """A golden's warm-up is nobody's request."""
    kernel.tables.set_route_port(1, 0)
    talk = Conversation(kernel)
    talk.ask(flags=SYN)
    talk.ask(b"?")
    talk.answer(b"!")
    assert counted(kernel) == {}


def test_other_ports_are_not_counted(kernel: Kernel) -> None:
    """Outbound traffic of a function is not its clients'."""
    segment = packets.tcp(INNER, CLIENT, (40000, 443), payload=b"out")
    kernel.run("from_sandbox", frame(ipv4(INNER, CLIENT, TCP, segment), OUTWARDS))
    assert counted(kernel) == {}


def test_a_wake_is_stamped_from_first_syn_to_first_payload(kernel: Kernel) -> None:
    """Stamps are CLOCK_MONOTONIC, set once; the difference is in the histogram."""
    publish(kernel, ARMED)
    talk = Conversation(kernel)
    before = time.monotonic_ns()
    talk.ask(flags=SYN, sequence=1)
    asked = time.monotonic_ns()
    Conversation(kernel, 40001).ask(flags=SYN, sequence=1)
    talk.answer(flags=SYN | ACK)
    assert kernel.state().first_answer_ns == 0
    talk.answer(b"!")
    first = kernel.state()
    talk.answer(b"more")
    assert before <= first.first_syn_ns <= asked <= first.first_answer_ns
    assert kernel.state().first_answer_ns == first.first_answer_ns
    took = first.first_answer_ns - first.first_syn_ns
    found = quantile_ns(kernel.tables.buckets(PORT), 0.5)
    assert found is not None
    assert abs(found - took) <= took / 32 + 1024
    assert counted(kernel)["answered_wakes"] == 1


def test_no_stamp_before_anything_was_published(kernel: Kernel) -> None:
    """A golden publishes nothing, so that its warm-up is no wake."""
    talk = Conversation(kernel)
    talk.ask(flags=SYN)
    talk.answer(b"!")
    assert kernel.state().first_syn_ns == 0
    assert "answered_wakes" not in counted(kernel)


def test_no_stamp_when_a_command_woke_it(kernel: Kernel) -> None:
    """A sandbox that runs already was not woken by its first client."""
    publish(kernel, RUNNING)
    talk = Conversation(kernel)
    talk.ask(flags=SYN)
    talk.answer(b"!")
    assert kernel.state().first_syn_ns == 0
    assert "answered_wakes" not in counted(kernel)


def test_each_arming_is_a_new_wake(kernel: Kernel) -> None:
    """The init clears the stamps when it arms again."""
    for port in (40001, 40002, 40003):
        publish(kernel, ARMED)
        talk = Conversation(kernel, port)
        talk.ask(flags=SYN)
        talk.answer(b"!")
    assert counted(kernel)["answered_wakes"] == 3
    assert sum(kernel.tables.buckets(PORT)) == 3


def test_an_answered_wake_is_a_record(kernel: Kernel) -> None:
    """The ring buffer tells who woke, which time, and both stamps."""
    records: list[bytes] = []
    reader = RingReader(kernel.tables.traffic.descriptor, records.append)
    reader.poll(0)
    records.clear()
    publish(kernel, ARMED)
    talk = Conversation(kernel)
    talk.ask(flags=SYN)
    talk.answer(b"!")
    reader.poll(0)
    reader.close()
    assert len(records) == 1
    record = FirstAnswerData.from_buffer_copy(records[0])
    assert (record.slot, record.generation, record.route_port) == (SLOT, 7, PORT)
    assert record.first_syn_ns == kernel.state().first_syn_ns
    assert record.first_answer_ns == kernel.state().first_answer_ns
