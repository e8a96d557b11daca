# SPDX-License-Identifier: Apache-2.0
"""Every reason of the four contracts: its constructor, its code, and its way over the wire."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from aetherless_common import channels, errors, status
from aetherless_common.settings import SERVICES

CONTRACTS = Path(__file__).resolve().parents[3] / "protos" / "aetherless"
ENTRY = re.compile(r"// ([A-Z_]+): (.*)\n\s*ERROR_REASON_([A-Z_]+) = \d+;")
OPTIONAL = {"remedy"}


@dataclass(frozen=True)
class Reason:
    """One value of a contract's ErrorReason, as its comment describes it."""

    service: str
    name: str
    code: str
    metadata: frozenset[str]


def reasons() -> list[Reason]:
    """Read the reasons of all contracts from their comments."""
    found = []
    for service in SERVICES:
        text = (CONTRACTS / service / "v1" / "error_reason.proto").read_text()
        for code, comment, name in ENTRY.findall(text):
            listed = comment.partition("Metadata: ")[2].partition(";")[0]
            keys = re.findall(r"\w+", re.sub(r"\(.*?\)", "", listed))
            found.append(Reason(service, name, code, frozenset(keys)))
    return found


def label(reason: Reason) -> str:
    """Name a test's case."""
    return f"{reason.service}-{reason.name}"


def example(reason: Reason) -> errors.AetherlessError:
    """Construct the error for a reason by the service's constructor, or by the common one."""
    module = importlib.import_module(f"aetherless_{reason.service}.errors")
    name = reason.name.lower()
    construct = getattr(module, name, None) or getattr(errors, name)
    wanted = inspect.signature(construct).parameters.values()
    needed = [p for p in wanted if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    by_name = {p.name: argument(p) for p in needed if p.kind is p.KEYWORD_ONLY}
    made = construct(*(argument(p) for p in needed if p.name not in by_name), **by_name)
    assert isinstance(made, errors.AetherlessError)
    return made


def argument(parameter: inspect.Parameter) -> object:
    """Make an argument of a constructor from its annotation."""
    kind = str(parameter.annotation)
    samples: dict[str, object] = {"int": 7, "float": 7.5, "Path": Path("/x"), "str": "sample"}
    if kind.endswith("Error"):
        return SampleError(2, "sample")
    if kind.startswith(("Sequence", "list", "tuple", "Iterable")):
        return [errors.Violation("field", "sample") if "Violation" in kind else "sample"]
    return next((value for name, value in samples.items() if name in kind), "sample")


class SampleError(OSError):
    """A cause that some constructors take; ``log`` is what a verifier said."""

    log = "sample"


class Call(grpc.RpcError):
    """What a client's failed call shows of a status."""

    def __init__(self, sent: grpc.Status) -> None:
        self._sent = sent

    def code(self) -> grpc.StatusCode:
        """Return the code."""
        return self._sent.code

    def details(self) -> str:
        """Return the message."""
        return self._sent.details

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:  # type: ignore[override]
        """Return the metadata, where the details travel."""
        return self._sent.trailing_metadata


def test_the_contracts_were_read() -> None:
    """Each enum's values were found by the comment's pattern; none has an unreadable comment."""
    for service in SERVICES:
        module = importlib.import_module(f"aetherless.{service}.v1.error_reason_pb2")
        declared = {name.removeprefix("ERROR_REASON_") for name in module.ErrorReason.keys()}  # noqa: SIM118
        read = {reason.name for reason in reasons() if reason.service == service}
        assert declared - read == {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", reasons(), ids=label)
def test_every_reason_has_a_constructor(reason: Reason) -> None:
    """It gives the contract's code and metadata keys, and a sentence without placeholders."""
    error = example(reason)
    assert (error.reason, error.code) == (reason.name, reason.code)
    assert set(error.metadata) - OPTIONAL == reason.metadata - OPTIONAL
    assert error.message
    assert "{" not in error.message


@pytest.mark.parametrize("reason", reasons(), ids=label)
def test_every_reason_survives_the_wire(reason: Reason) -> None:
    """To a status, through gRPC's own two conversions, and back: nothing is lost."""
    cls = errors.CLASSES[reason.code]
    violations = [errors.Violation("spec.port", "is taken"), errors.Violation("spec.id", "is long")]
    metadata = dict.fromkeys(sorted(reason.metadata), "täglich 1")
    sent = cls(reason.name, "what happened", metadata, violations=violations, remedy="do this")
    call = Call(rpc_status.to_status(status.to_status(sent, f"{reason.service}.aetherless")))
    got = status.from_rpc_error(call, reason.service, "Method")
    assert type(got) is cls
    assert (got.reason, got.domain) == (reason.name, f"{reason.service}.aetherless")
    assert (got.message, got.metadata) == (sent.message, sent.metadata)
    assert (got.violations, got.remedy) == (sent.violations, "do this")
    assert len(reason.name) <= 63


def test_a_foreign_domain_is_kept() -> None:
    """A server that hands on another's error does not claim it."""
    error = errors.NotFound("SNAPSHOT_NOT_FOUND", "none", domain="snapshotter.aetherless")
    handed_on = status.from_status(status.to_status(error, "registry.aetherless"))
    assert handed_on.domain == "snapshotter.aetherless"


def test_untyped_status_is_internal() -> None:
    """A status without ErrorInfo, or with a code of no class of ours, is somebody's fault."""
    bare = status.from_status(status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such"))
    assert (type(bare), bare.message) == (errors.Internal, "no such")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "PEER_UNREACHABLE"),
        (grpc.StatusCode.CANCELLED, "PEER_UNREACHABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PEER_UNREACHABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "PEER_TIMEOUT"),
        (grpc.StatusCode.UNIMPLEMENTED, "INTERNAL"),
        (grpc.StatusCode.UNKNOWN, "INTERNAL"),
    ],
)
def test_what_grpc_says_itself(code: grpc.StatusCode, reason: str) -> None:
    """Without details of ours, gRPC's own codes become typed errors that name the service."""
    call = Call(type("Bare", (), {"code": code, "details": "x", "trailing_metadata": ()})())
    error = status.from_rpc_error(call, "netplane", "SetRoute")
    assert error.reason == reason
    assert error.metadata["service"] == "netplane"


def test_exit_statuses_are_distinct() -> None:
    """Each class has an exit status of its own; 0 and 2 (usage) are taken."""
    statuses = {cls.exit_status for cls in errors.CLASSES.values()}
    assert len(statuses) == len(errors.CLASSES) == 11
    assert statuses.isdisjoint({0, 2})


def test_light_modules_import_no_grpc() -> None:
    """The command line may import these before it knows whether it needs a service."""
    modules = ("settings", "errors", "proc", "cgroups", "pagination", "watch", "lock")
    code = "import sys\n" + "".join(f"import aetherless_common.{m}\n" for m in modules)
    code += "print(*{'grpc', 'google.protobuf', 'structlog', 'asyncio'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""


LARGEST_METADATA = dict(channels.OPTIONS)["grpc.max_metadata_size"]


def test_an_error_is_never_too_large_to_travel() -> None:
    """Texts and violations are bounded: gRPC drops a call whose metadata is not."""
    text, places = "\U0001f600" * 100_000, range(1000)
    error = errors.invalid_argument(
        text, text, *(errors.Violation(f"functions[{n}]", text) for n in places)
    )
    sent = status.to_status(error, "sample.aetherless")
    assert sent.ByteSize() * 4 // 3 + len(quote(sent.message)) < LARGEST_METADATA
    back = status.from_status(sent)
    assert back.reason == "INVALID_ARGUMENT"
    assert back.metadata["field"].startswith("\U0001f600")
    assert back.metadata["field"].endswith("…")
