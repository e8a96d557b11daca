# SPDX-License-Identifier: Apache-2.0
"""Pinned BPF maps with typed keys and values."""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import byref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aetherless_netplane import libbpf
from aetherless_netplane.libbpf import BpfError

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K", bound=Any)
V = TypeVar("V", bound=Any)


class BpfMap(Generic[K, V]):
    """One map. Keys and values are ctypes types of the size that the map was made with.

    Args:
        path: where the map is pinned.
        key: the type of keys.
        value: the type of values.
    """

    def __init__(self, path: str, key: type[K], value: type[V]) -> None:
        self.path = path
        self.descriptor = libbpf.get_pinned(path)
        self._key = key
        self._value = value

    def get(self, key: K) -> V | None:
        """Return a copy of an entry's value."""
        value: V = self._value()
        if self._failed(libbpf.library().bpf_map_lookup_elem, key, byref(value)):
            return None
        return value

    def put(self, key: K, value: V) -> None:
        """Make or replace an entry.

        Raises:
            BpfError: E2BIG, the map is full.
        """
        update = libbpf.library().bpf_map_update_elem
        if update(self.descriptor, byref(key), byref(value), libbpf.ANY):
            raise BpfError(ctypes.get_errno(), f"writing to {self.path}")

    def delete(self, key: K) -> None:
        """Delete an entry, if it is there."""
        self._failed(libbpf.library().bpf_map_delete_elem, key)

    def keys(self) -> list[K]:
        """Return the keys."""
        size = ctypes.sizeof(self._key)
        return [self._key.from_buffer_copy(k) for k in libbpf.map_keys(self.descriptor, size)]

    def close(self) -> None:
        """Close the descriptor; the map stays."""
        os.close(self.descriptor)

    def _failed(self, call: Any, key: K, *arguments: Any) -> bool:
        """Make a call about an entry; tell whether there is no such entry."""
        if not call(self.descriptor, byref(key), *arguments):
            return False
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            return True
        raise BpfError(number, f"using {self.path}")


class PerCpuMap(BpfMap[K, V]):
    """A map with a value for each possible CPU; they are stored 8-byte aligned."""

    def __init__(self, path: str, key: type[K], value: type[V]) -> None:
        cpus = libbpf.possible_cpus()
        if ctypes.sizeof(value) % 8:
            raise ValueError(f"{value.__name__} is not a multiple of 8 bytes")
        super().__init__(path, key, value * cpus)

    def each(self, key: K) -> Iterator[V]:
        """Give the value of each CPU; none when there is no such entry."""
        values = self.get(key)
        if values is not None:
            yield from values

    def put_zero(self, key: K) -> None:
        """Make or replace an entry with zeros."""
        self.put(key, self._value())
