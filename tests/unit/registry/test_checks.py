# SPDX-License-Identifier: Apache-2.0
"""A check beside fake services: what it tells, and that it leaves nothing, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import check_pb2, function_pb2
from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_common.errors import Aborted, AetherlessError, FailedPrecondition, Unavailable
from aetherless_registry import checks, names
from framework.registry_client import wait_until
from framework.served import NOTHING, serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

STEPS = [
    "create-golden",
    "attach-golden",
    "create-snapshot",
    "delete-golden",
    "create-instance",
    "attach-instance",
    "try-snapshot",
]
#: The changing calls of a whole check; the first of them make, the last remove.
CALLS = [
    "CreateInstance",
    "AttachEndpoint",
    "CreateSnapshot",
    "DetachEndpoint",
    "DeleteInstance",
    "CreateInstance",
    "AttachEndpoint",
    "TryInstance",
    "DetachEndpoint",
    "DeleteInstance",
    "DeleteSnapshot",
    "DeleteRoot",
]
WARNING = snapshot_pb2.Finding(
    subject="outbound-connection",
    severity=snapshot_pb2.FINDING_SEVERITY_WARNING,
    message="had one",
    remedy="connect again",
)
REFUSAL = snapshot_pb2.Finding(
    subject="io-uring",
    severity=snapshot_pb2.FINDING_SEVERITY_REFUSED,
    message="holds one",
    pid=10000,
    command="server",
)


def done(told: list[Any]) -> list[str]:
    """Return the steps that are told to be done."""
    return [
        each.progress.step
        for each in told
        if each.progress.state == function_pb2.PROGRESS_STATE_DONE and not each.progress.phase
    ]


def refused(registry: RegistryClient, spec: function_pb2.FunctionSpec) -> tuple[list[Any], Any]:
    """Have a check refused; returns what was told before, and the error."""
    told: list[Any] = []
    with pytest.raises(AetherlessError) as caught:
        told.extend(registry.check(spec))
    return told, caught.value


def within_the_dump(registry: RegistryClient, spec: function_pb2.FunctionSpec) -> Any:
    """Begin a check; returns its stream once the program is being dumped."""
    stream = registry.check(spec)
    next(response for response in stream if response.progress.phase == "dump")
    return stream


def test_a_check_reports_and_leaves_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It goes a deploy's way up to the trial, and back; nothing is routed, stored or recorded."""
    host.findings = [WARNING]
    told = list(registry.check(spec()))
    assert done(told) == STEPS
    report = told[-1].report
    assert [each.subject for each in report.findings] == ["outbound-connection"]
    assert report.findings[0].severity == check_pb2.FINDING_SEVERITY_WARNING
    assert report.start_duration.ToMilliseconds() == 60
    assert report.dump_duration.ToMilliseconds() == 20
    assert [each.ToMilliseconds() for each in report.restores] == [4] * 10
    assert report.first_answer.ToMilliseconds() == 8
    assert report.suggested_restore_timeout.ToMilliseconds() == 8
    assert (report.snapshot_bytes, report.resident_bytes, report.processes) == (4096, 8192, 1)
    assert host.calls == CALLS
    assert host.names() == NOTHING
    assert not registry.list().functions
    assert not registry.events()


def test_a_refusal_is_told_first_and_leaves_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The error speaks of the function, and not of the id that the check has."""
    host.findings = [REFUSAL, WARNING]
    told, error = refused(registry, spec())
    assert error.reason == "NOT_CHECKPOINTABLE"
    assert error.message == "hello can't be checkpointed"
    assert error.metadata["function"] == "hello"
    (found,) = [each.findings for each in told if each.findings]
    assert [each.subject for each in found] == ["io-uring", "outbound-connection"]
    assert (found[0].pid, found[0].command) == (10000, "server")
    assert told[-1].progress.state == function_pb2.PROGRESS_STATE_FAILED
    assert host.names() == NOTHING


def test_a_deployed_function_goes_on(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """The same id and port as one that serves: neither is touched."""
    registry.apply(spec())
    registry.deployed()
    list(registry.check(spec(memory_limit_mb=256)))
    assert host.names() == serving()
    assert registry.get().revision == 1


@pytest.mark.parametrize("call", sorted(set(CALLS)))
def test_a_step_that_fails_leaves_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec, call: str
) -> None:
    """Making: its error is the check's. Removing: it is tried again."""
    host.faults[call].append(FailedPrecondition("SANDBOX_FAILED", "broken", {"cause": "test"}))
    if call in {"DeleteSnapshot", "DeleteRoot"}:
        list(registry.check(spec()))
    else:
        _, error = refused(registry, spec())
        assert error.reason == "SANDBOX_FAILED"
    settled(host, NOTHING)


def test_what_is_busy_is_removed_later(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A trial that nobody waits for any more holds its sandbox for a moment."""
    busy = Aborted("OPERATION_IN_PROGRESS", "busy", {"resource": "instances/x"})
    host.faults["TryInstance"].append(FailedPrecondition("RESTORE_FAILED", "no", {}))
    host.before = lambda rpc: (
        host.faults["DeleteInstance"].extend([busy] * 3) if rpc == "TryInstance" else None
    )
    _, error = refused(registry, spec())
    assert error.reason == "RESTORE_FAILED"
    settled(host, NOTHING)


def test_a_cancelled_check_leaves_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Ctrl-C within the checkpoint."""
    host.holds.clear()
    within_the_dump(registry, spec()).cancel()
    settled(host, NOTHING)
    assert "CreateSnapshot" in host.calls
    assert host.calls.count("CreateInstance") == 1


def test_a_check_cancelled_in_its_trial(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The restores are told to end at once, and not waited for."""
    host.trials.clear()
    ended: list[str] = []
    host.after = ended.append
    stream: Any = registry.check(spec())
    next(each for each in stream if each.progress.step == "try-snapshot")
    wait_until(lambda: "TryInstance" in host.calls)
    stream.cancel()
    wait_until(lambda: "TryInstance cancelled" in ended)
    settled(host, NOTHING)


def test_as_many_checks_as_may_go_on(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """One more is refused by type, and possible again when one has ended."""
    host.holds.clear()
    streams = [within_the_dump(registry, spec(f"f{n}")) for n in range(checks.MOST_CHECKS)]
    _, error = refused(registry, spec("more"))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CHECKS")
    assert error.metadata["limit"] == str(checks.MOST_CHECKS)
    host.holds.set()
    for stream in streams:
        assert list(stream)[-1].report.restores
    assert list(registry.check(spec("more")))[-1].report.restores
    settled(host, NOTHING)


def test_a_check_outlives_a_look_at_everything(
    registry: RegistryClient, host: FakeHost, services: FakeServices, spec: Spec
) -> None:
    """What nobody declares is removed at each look, but not what is being checked."""
    host.holds.clear()
    stream = within_the_dump(registry, spec())
    services.stop("netplane")
    services.start("netplane")
    registry.apply(spec("other", trigger_port=9090))
    wait_until(lambda: host.calls.count("CreateInstance") == 2)
    host.holds.set()
    assert list(stream)[-1].report.restores
    registry.deployed("other")


def test_without_the_snapshotter_it_fails_and_is_removed_later(
    registry: RegistryClient, host: FakeHost, services: FakeServices, spec: Spec
) -> None:
    """A service that dies within a check: a typed error; what was made goes once it is back."""
    host.holds.clear()
    stream = within_the_dump(registry, spec())
    services.stop("snapshotter")
    services.start("snapshotter")
    with pytest.raises(Unavailable):
        list(stream)
    settled(host, NOTHING)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"trigger_port": 70000}, "CONFIG_INVALID"), ({"handler_path": "x"}, "CONFIG_INVALID")],
)
def test_a_wrong_declaration_is_refused(
    registry: RegistryClient, host: FakeHost, spec: Spec, fields: dict[str, Any], reason: str
) -> None:
    """Before anything is made."""
    _, error = refused(registry, spec(**fields))
    assert error.reason == reason
    assert host.calls == []


@pytest.mark.parametrize("restores", [-1, 101])
def test_the_number_of_restores_has_bounds(
    registry: RegistryClient, spec: Spec, restores: int
) -> None:
    """0 to 100."""
    with pytest.raises(AetherlessError) as caught:
        list(registry.check(spec(), restores))
    assert caught.value.metadata["field"] == "restores"


def test_ids_of_checks_are_no_functions() -> None:
    """And what has them is known to be theirs."""
    check = names.check_id("hello-api")
    assert names.is_check(check)
    assert not names.is_check("hello-api")
    assert names.check_id("hello-api") != check
    owner = names.Owner(check, 1)
    assert names.sandbox_owner(names.golden_id(check, 1)) == owner
    assert names.sandbox_owner(names.instance_id(check, 1)) == owner
    assert names.snapshot_owner(names.snapshot_id(check, 1)) == owner
