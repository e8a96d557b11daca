# SPDX-License-Identifier: Apache-2.0
"""The few calls of libbpf.so.1 (1.1 and newer) that the netplane makes, by ctypes.

Every call releases the interpreter lock. Failures raise ``BpfError`` with the errno, never a
library-specific number: libbpf 1.x returns NULL or a negative errno, and sets errno.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_int,
    c_size_t,
    c_uint32,
    c_void_p,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG_BYTES = 1 << 20
ANY = 0  # BPF_ANY: make or replace an entry
NO_EXIST = 1  # BPF_NOEXIST: make an entry, fail where there is one


class BpfError(OSError):
    """A call of libbpf or of bpf(2) failed.

    Args:
        number: the errno.
        what: the call, and what it was about.
        log: the verifier's words, when a program was refused.
    """

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}")
        self.log = log


class ObjectOpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("removed", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_char_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
    )


class TcHook(ctypes.Structure):
    """struct bpf_tc_hook."""

    _fields_ = (
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
    )


class TcOptions(ctypes.Structure):
    """struct bpf_tc_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


SAMPLE_FUNCTION = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
PRINT_FUNCTION = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (c_void_p, (c_char_p, POINTER(ObjectOpenOptions))),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_map__set_initial_value": (c_int, (c_void_p, c_void_p, c_size_t)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_link_update": (c_int, (c_int, c_int, c_void_p)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, ctypes.c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_tc_hook_create": (c_int, (POINTER(TcHook),)),
    "bpf_tc_attach": (c_int, (POINTER(TcHook), POINTER(TcOptions))),
    "bpf_prog_test_run_opts": (c_int, (c_int, POINTER(TestRunOptions))),
    "ring_buffer__new": (c_void_p, (c_int, SAMPLE_FUNCTION, c_void_p, c_void_p)),
    "ring_buffer__poll": (c_int, (c_void_p, c_int)),
    "ring_buffer__free": (None, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "libbpf_set_print": (c_void_p, (PRINT_FUNCTION,)),
}


def _drop_message(_level: int, _format: bytes, _arguments: int) -> int:
    """Drop libbpf's own messages: errors carry the errno and the verifier's log."""
    return 0


_silent = PRINT_FUNCTION(_drop_message)  # kept: libbpf calls it later


def _open_library() -> ctypes.CDLL:
    """Open libbpf and declare its functions.

    Raises:
        OSError: the library is not installed.
    """
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_silent)
    return library


_opened: list[ctypes.CDLL] = []


def library() -> ctypes.CDLL:
    """Return libbpf, opened at the first call.

    Raises:
        OSError: the library is not installed.
    """
    if not _opened:
        _opened.append(_open_library())
    return _opened[0]


def _check(result: int, what: str) -> int:
    """Return a result that is no failure."""
    if result < 0:
        raise BpfError(ctypes.get_errno() or -result, what)
    return result


def possible_cpus() -> int:
    """Return how many values an entry of a per-CPU map has."""
    return _check(library().libbpf_num_possible_cpus(), "counting CPUs")


def get_pinned(path: str) -> int:
    """Return a descriptor of what is pinned at a path.

    Raises:
        BpfError: ENOENT when nothing is.
    """
    return _check(library().bpf_obj_get(path.encode()), f"opening {path}")


def pin(descriptor: int, path: str) -> None:
    """Pin a program, map or link."""
    _check(library().bpf_obj_pin(descriptor, path.encode()), f"pinning {path}")


def create_link(program: int, target: int, attach_type: int) -> int:
    """Attach a program by a link; the link's end is the attachment's end."""
    return _check(library().bpf_link_create(program, target, attach_type, None), "creating a link")


def update_link(link: int, program: int) -> None:
    """Put another program behind a link, in one step."""
    _check(library().bpf_link_update(link, program, None), "updating a link")


def attach_tc(ifindex: int, *, egress: bool, program: int, priority: int = 1) -> None:
    """Attach a program to one direction of a link; replaces the one that we attached before."""
    point = 2 if egress else 1  # BPF_TC_EGRESS, BPF_TC_INGRESS
    hook = TcHook(sz=ctypes.sizeof(TcHook), ifindex=ifindex, attach_point=point)
    options = TcOptions(
        sz=ctypes.sizeof(TcOptions), prog_fd=program, flags=1, handle=1, priority=priority
    )  # flags: BPF_TC_F_REPLACE
    what = f"attaching to link {ifindex} {'egress' if egress else 'ingress'}"
    _check(library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)), what)


def create_clsact(ifindex: int) -> None:
    """Add the clsact qdisc to a link.

    Raises:
        BpfError: EEXIST when it has one.
    """
    hook = TcHook(sz=ctypes.sizeof(TcHook), ifindex=ifindex, attach_point=3)
    _check(library().bpf_tc_hook_create(ctypes.byref(hook)), f"adding clsact to link {ifindex}")


def run_on_packet(program: int, packet: bytes, repeat: int) -> tuple[int, bytes, int]:
    """Run a tc program on a packet (BPF_PROG_TEST_RUN), as if it came by the loopback link.

    Returns:
        The program's verdict (signed), the packet afterwards, and the mean nanoseconds of a run.
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    out = ctypes.create_string_buffer(len(packet) + 256)
    options = TestRunOptions(
        sz=ctypes.sizeof(TestRunOptions),
        data_in=ctypes.cast(data, c_void_p),
        data_out=ctypes.cast(out, c_void_p),
        data_size_in=len(packet),
        data_size_out=len(out),
        repeat=repeat,
    )
    _check(library().bpf_prog_test_run_opts(program, ctypes.byref(options)), "running a program")
    verdict = ctypes.c_int32(options.retval).value
    return verdict, out.raw[: options.data_size_out], options.duration


class LoadedObject:
    """An object file whose programs are in the kernel; its maps are pinned below ``pin_root``.

    Args:
        path: the .bpf.o file.
        pin_root: the folder, in a bpffs, where maps are found or pinned by their names.
        constants: the new value of a read-only data section, by the section's name.

    Raises:
        BpfError: with the verifier's log when a program was refused.
    """

    def __init__(self, path: str, pin_root: str, constants: dict[str, bytes]) -> None:
        self._log = ctypes.create_string_buffer(LOG_BYTES)
        options = ObjectOpenOptions(
            sz=ctypes.sizeof(ObjectOpenOptions),
            pin_root_path=pin_root.encode(),
            kernel_log_buf=ctypes.cast(self._log, c_char_p),
            kernel_log_size=LOG_BYTES,
        )
        self._handle = library().bpf_object__open_file(path.encode(), ctypes.byref(options))
        if not self._handle:
            raise BpfError(ctypes.get_errno(), f"opening {path}")
        try:
            for section, value in constants.items():
                self._set_constants(section, value)
            self._load(path)
        except BaseException:
            self.close()
            raise

    def _set_constants(self, section: str, value: bytes) -> None:
        section_map = library().bpf_object__find_map_by_name(self._handle, section.encode())
        if not section_map:
            raise BpfError(ctypes.get_errno(), f"finding section {section}")
        _check(
            library().bpf_map__set_initial_value(section_map, value, len(value)),
            f"setting section {section}",
        )

    def _load(self, path: str) -> None:
        result = library().bpf_object__load(self._handle)
        if result < 0:
            log = self._log.value.decode(errors="replace")
            raise BpfError(ctypes.get_errno() or -result, f"loading {path}", log)

    def program(self, name: str) -> int:
        """Return a program's descriptor; it is the object's, and ends with it."""
        found = library().bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise BpfError(ctypes.get_errno(), f"finding program {name}")
        return _check(library().bpf_program__fd(found), f"program {name}")

    def close(self) -> None:
        """Free the object; what is pinned or attached stays."""
        library().bpf_object__close(self._handle)


class RingReader:
    """Hands each record of a ring buffer to ``sample``, in the thread that polls.

    Args:
        descriptor: the ring buffer map.
        sample: called with a copy of each record.
    """

    def __init__(self, descriptor: int, sample: Callable[[bytes], None]) -> None:
        self._sample = sample
        self._callback = SAMPLE_FUNCTION(self._take)  # kept: libbpf calls it later
        self._handle = library().ring_buffer__new(descriptor, self._callback, None, None)
        if not self._handle:
            raise BpfError(ctypes.get_errno(), "opening the ring buffer")

    def _take(self, _context: int, data: int, size: int) -> int:
        # SAFETY: libbpf keeps the record in place until the callback returns; this is a copy.
        self._sample(ctypes.string_at(data, size))
        return 0

    def poll(self, timeout_ms: int) -> int:
        """Wait for records, hand them out, and return how many there were."""
        result: int = library().ring_buffer__poll(self._handle, timeout_ms)
        return max(result, 0)

    def close(self) -> None:
        """Free the reader; the records that were not read stay in the map."""
        library().ring_buffer__free(self._handle)


def map_keys(descriptor: int, size: int) -> Iterator[bytes]:
    """Give the keys of a map. Entries that come or go meanwhile may be missed or repeated."""
    key: bytes | None = None
    following = ctypes.create_string_buffer(size)
    while library().bpf_map_get_next_key(descriptor, key, following) == 0:
        key = following.raw
        yield key
