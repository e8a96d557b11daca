# SPDX-License-Identifier: Apache-2.0
"""The Python client as the tests drive it; the other languages' programs do the same.

``serve``: answers calls and is a stage: echo, fail, describe, parts, grow; relay makes calls.
``script REGION RING``: both ends of one ring; ``put TYPE LENGTH SEED`` and ``take`` lines.
``produce|consume REGION WAKE BELL COUNT RING``: one end; COUNT records whose content is known.
"""

from __future__ import annotations

import mmap
import os
import select
import sys

import aetherless_client
from aetherless_ring import (
    Consumer,
    PayloadTooLargeError,
    Producer,
    RingCorruptError,
    RingEmptyError,
    RingError,
    RingFullError,
)
from aetherless_ring.layout import Direction

LIMIT_S = 60.0


def pattern(length: int, seed: int) -> bytes:
    """Return the content of a record."""
    return bytes(seed * 31 + place * 7 + (place >> 8) & 255 for place in range(length))


def content(number: int) -> bytes:
    """Return the payload of record ``number`` of a run."""
    return pattern(1 + number * 7919 % (600 if number % 10 else 16384), number)


def refusal(error: RingError) -> str:
    """Say why a ring refused."""
    if isinstance(error, RingCorruptError):
        return f"corrupt {error.fault} {error.expected} {error.actual}"
    names = {RingFullError: "full", RingEmptyError: "empty", PayloadTooLargeError: "too_large"}
    return names[type(error)]


def script(memory: mmap.mmap, ring_bytes: int) -> None:
    """Do what the lines say; answer each with one."""
    producer = Producer(memory, Direction.TO_PEER, ring_bytes)
    consumer = Consumer(memory, Direction.TO_PEER, ring_bytes)
    for line in sys.stdin:
        verb, *numbers = line.split()
        try:
            if verb == "put":
                kind, length, seed = map(int, numbers)
                producer.publish(pattern(length, seed), kind)
                print("ok", flush=True)
            else:
                kind, payload = consumer.receive()
                print("record", kind, payload.hex(), flush=True)
        except RingError as error:
            print(refusal(error), flush=True)


def produce(memory: mmap.mmap, bell: int, count: int, ring_bytes: int) -> None:
    """Put the run's records in."""
    producer = Producer(memory, Direction.TO_PEER, ring_bytes, bell)
    for number in range(count):
        payload = content(number)
        if not producer.wait(len(payload), LIMIT_S):
            sys.exit("no room")
        producer.publish(payload, number)


def consume(memory: mmap.mmap, wake: int, bell: int, count: int, ring_bytes: int) -> None:
    """Take the run's records out, and check them."""
    consumer = Consumer(memory, Direction.TO_PEER, ring_bytes, bell)
    for number in range(count):
        if consumer.doze():
            if not select.select([wake], [], [], LIMIT_S)[0]:
                sys.exit("no record")
            os.read(wake, 8)
        if not consumer.wait(LIMIT_S):
            sys.exit("no record after a bell")
        if consumer.receive() != (number, content(number)):
            sys.exit(f"record {number} is not as it was written")


def echo(data: bytes) -> bytes:
    """Return what came."""
    return data


def fail(_: bytes) -> bytes:
    """Fail."""
    raise RuntimeError("told to fail")


def describe(_: bytes) -> bytes:
    """Say what the request came with."""
    request = aetherless_client.current_request()
    return b"%d %s" % (request.attempt, request.trace)


def parts(_: bytes) -> bytes:
    """Return what came from each input, and the attempt."""
    request = aetherless_client.current_request()
    return b"%d %s" % (request.attempt, b"|".join(request.parts))


def grow(data: bytes) -> bytes:
    """Return as many bytes as the data says."""
    return bytes(int(data))


def relay(data: bytes) -> bytes:
    """Call the function that the first word names with the rest; return what that brings."""
    function, _, rest = data.partition(b" ")
    try:
        return aetherless_client.call(function.decode(), rest)
    except (aetherless_client.CallError, RingError) as error:
        return f"{error.reason} {getattr(error, 'message', '')}".encode()


HANDLERS = {
    "": echo,
    "echo": echo,
    "fail": fail,
    "describe": describe,
    "parts": parts,
    "grow": grow,
    "relay": relay,
}


def main(command: str, *given: str) -> None:
    """Do one command."""
    if command == "serve":
        aetherless_client.serve(HANDLERS, threads=int(*given or "1"))
    region, *numbers = map(int, given)
    memory = mmap.mmap(region, os.fstat(region).st_size)
    if command == "script":
        script(memory, *numbers)
    elif command == "produce":
        produce(memory, *numbers[1:])
    else:
        consume(memory, *numbers)


if __name__ == "__main__":
    main(*sys.argv[1:])
