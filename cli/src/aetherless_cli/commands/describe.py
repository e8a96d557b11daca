# SPDX-License-Identifier: Apache-2.0
"""``aetherctl describe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless.ipc.v1.channel_pb2 import Channel
    from aetherless.registry.v1.function_pb2 import Function, Revision
    from aetherless.snapshotter.v1.instance_pb2 import Instance
    from aetherless.snapshotter.v1.snapshot_pb2 import Snapshot, Trial
    from aetherless_cli.client import Mesh
    from aetherless_cli.program import Options

HELP = """Show one function, its revisions, its processes and its snapshot.

For a running one it shows that CRIU restored it: the process as the kernel has it (pid, pid inside
the sandbox, parent, when it was made), the snapshot it comes from and how long the restore took.
While the ipc service does not answer, the channel is left out, and the command fails after it has
shown the rest.

\b
Example:
  aetherctl describe hello-api
"""


class Described(NamedTuple):
    """What is shown of a function."""

    function: Function
    instances: list[Instance]
    snapshots: dict[str, Snapshot]
    channel: Channel | None


@click.command("describe", help=HELP)
@id_argument()
@output_option
@click.pass_obj
def command(options: Options, function_id: str) -> None:
    """Show one function, its processes and its snapshot."""
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.output import print_data
    from aetherless_common.errors import Unavailable

    channel, failure = None, None
    with Console(options.output).busy(f"reading {function_id}"), mesh() as services:
        function = services.function(function_id)
        instances = services.instances(function_id)
        snapshots = _snapshots(services, instances)
        try:
            channel = _channel(services, function_id) if function.spec.ipc else None
        except Unavailable as error:
            failure = error  # the rest is worth showing, then this is how it ends
    found = Described(function, instances, snapshots, channel)
    if options.output == "table":
        _show(found)
    else:
        print_data(_data(found), options.output)
    if failure:
        raise failure


def _data(found: Described) -> dict[str, object]:
    """Return what the programs' formats print."""
    from aetherless_cli.evidence import evidence_of
    from aetherless_cli.plain import to_plain

    kernel = {each.name: evidence_of(each.root_pid) for each in found.instances}
    return {
        "function": to_plain(found.function),
        "instances": [
            {**to_plain(each), "kernel": said.data() if (said := kernel[each.name]) else None}
            for each in found.instances
        ],
        "snapshots": [to_plain(each) for each in found.snapshots.values()],
        "channel": to_plain(found.channel) if found.channel else None,
    }


def _snapshots(services: Mesh, instances: list[Instance]) -> dict[str, Snapshot]:
    from aetherless.snapshotter.v1 import snapshotter_service_pb2 as messages

    names = dict.fromkeys(each.snapshot for each in instances if each.snapshot)
    found = {}
    for name in names:
        request = messages.GetSnapshotRequest(name=name)
        found[name] = services.snapshotter.GetSnapshot(request).snapshot
    return found


def _channel(services: Mesh, function_id: str) -> Channel | None:
    """Return a function's channel; None before its deploy has come to it."""
    from aetherless.ipc.v1 import ipc_service_pb2 as messages
    from aetherless_common.errors import NotFound

    request = messages.GetChannelRequest(name=f"channels/{function_id}")
    try:
        return services.ipc.GetChannel(request).channel
    except NotFound:
        return None


def _show(found: Described) -> None:
    from aetherless.snapshotter.v1.snapshot_pb2 import FINDING_SEVERITY_WARNING
    from aetherless_cli.check_view import show_findings
    from aetherless_cli.output import print_fields

    function, instances, snapshots, channel = found
    print_fields(_function_fields(function))
    print("\nrevisions")
    print_fields({str(each.revision): _revision_line(each) for each in function.revisions}, 2)
    addresses = {each.instance.rpartition("/")[2]: each.address for each in function.instances}
    for instance in instances:
        short = instance.name.rpartition("/")[2]
        print(f"\ninstance {short}")
        print_fields(_instance_fields(instance, addresses.get(short, "")), 2)
        if instance.HasField("last_wake"):
            print("  last wake")
            print_fields(_wake_fields(instance), 4)
    for name, snapshot in snapshots.items():
        print(f"\nsnapshot {name.rpartition('/')[2]}")
        print_fields(_snapshot_fields(snapshot), 2)
        warnings = [each for each in snapshot.findings if each.severity == FINDING_SEVERITY_WARNING]
        show_findings(warnings, 2)
    if channel:
        print("\nchannel")
        print_fields(_channel_fields(channel), 2)


def _channel_fields(channel: Channel) -> dict[str, object]:
    """Say where calls through a channel go, and how those before went."""
    from aetherless_cli.output import size
    from aetherless_cli.plain import milliseconds

    stats = channel.stats
    target = channel.instance.rpartition("/")[2]
    attached = next(
        (each.pid for each in channel.admissions if each.instance == channel.instance), 0
    )
    return {
        "calls go to": target,
        "served by": f"pid {attached}" if attached else "nobody yet; the next call wakes it",
        "may call": ", ".join(channel.may_call),
        "answer within": f"{milliseconds(channel.timeout):.0f} ms",
        "ring": f"{size(channel.buffer_size_bytes)} in each direction",
        "calls": f"{stats.calls} taken, {stats.succeeded} answered, {stats.failed} failed"
        f" ({stats.timed_out} too late), {stats.cancelled} given up,"
        f" {stats.redelivered} delivered again",
        "now": f"{stats.in_flight} under way, {stats.waiting} waiting",
    }


def _function_fields(function: Function) -> dict[str, object]:
    from aetherless_cli.plain import enum_word, milliseconds

    spec = function.spec
    fields: dict[str, object] = {
        "function": spec.function_id,
        "state": enum_word(function, "state"),
        "deploy": enum_word(function, "deploy_state"),
        "revision": f"{function.serving_revision or 'none'} serves, {function.revision} declared",
        "port": spec.trigger_port or "none, it is called through its channel",
        "handler": spec.handler_path,
        "folder": spec.root_path,
        "memory limit": f"{spec.memory_limit_mb} MiB",
        "restore limit": f"{milliseconds(spec.restore_timeout):.0f} ms",
        "evicted after": f"{milliseconds(spec.idle_after):.0f} ms idle"
        if milliseconds(spec.idle_after)
        else "never",
    }
    if function.deploy_error.reason:
        error = function.deploy_error
        fields["deploy error"] = f"{error.reason}: {error.message}"
        fields["failed step"] = function.deploy_step
    return fields


def _revision_line(revision: Revision) -> str:
    from datetime import UTC

    from aetherless_cli.plain import enum_word

    moment = revision.create_time.ToDatetime(UTC).isoformat(timespec="seconds")
    return f"{enum_word(revision, 'state').lower()}, declared {moment}"


def _instance_fields(instance: Instance, address: str) -> dict[str, object]:
    from aetherless_cli.evidence import evidence_of
    from aetherless_cli.output import size
    from aetherless_cli.plain import enum_word

    fields: dict[str, object] = {
        "state": enum_word(instance, "state"),
        "address": address,
        "snapshot": instance.snapshot.rpartition("/")[2],
        "command": " ".join(instance.command),
        "init pid": instance.init_pid,
        "process": f"pid {instance.root_pid}, pid {instance.sandbox_root_pid} in the sandbox"
        if instance.root_pid
        else "none runs; the next call restores one",
    }
    kernel = evidence_of(instance.root_pid)
    if kernel:
        parent = "the sandbox init" if kernel.parent_pid == instance.init_pid else "another process"
        fields["kernel says"] = (
            f"made {kernel.started_at}, child of {parent} ({kernel.parent_pid}): {kernel.command}"
        )
    fields["wakes"] = f"{instance.wakes} restored, {instance.failed_wakes} failed"
    fields["evictions"] = instance.evictions
    fields["memory"] = (
        f"{size(instance.unique_memory_bytes)} its own, {size(instance.shared_memory_bytes)} shared"
    )
    return fields


def _wake_fields(instance: Instance) -> dict[str, object]:
    from datetime import UTC

    from aetherless_cli.plain import enum_word, milliseconds

    wake: Any = instance.last_wake
    fields: dict[str, object] = {
        "number": wake.sequence,
        "woken by": wake.client or enum_word(wake, "cause").lower(),
        "at": wake.first_packet_time.ToDatetime(UTC).isoformat(timespec="milliseconds"),
        "restore": f"{milliseconds(wake.restore_duration):.2f} ms by CRIU",
        "in all": f"{milliseconds(wake.total_duration):.2f} ms from first packet to answering",
        "packets held": wake.held_packets,
    }
    if wake.failure_reason:
        fields["failed"] = f"{wake.failure_reason}: {wake.failure_message}"
    return fields


def _snapshot_fields(snapshot: Snapshot) -> dict[str, object]:
    from datetime import UTC

    from aetherless_cli.output import size

    processes = [f"{each.command} (pid {each.pid})" for each in snapshot.processes]
    fields: dict[str, object] = {
        "made": snapshot.create_time.ToDatetime(UTC).isoformat(timespec="milliseconds"),
        "revision": snapshot.revision,
        "processes": ", ".join(processes),
        "size": f"{size(snapshot.size_bytes)} on disk, {size(snapshot.resident_bytes)} resident",
        "memory": (
            f"{size(snapshot.shared_bytes)} shared until written,"
            f" {size(snapshot.eager_bytes)} copied by each restore"
        ),
        "made by": f"CRIU {snapshot.criu_version} on kernel {snapshot.kernel_release}",
    }
    if snapshot.HasField("trial"):
        fields["trial"] = _trial(snapshot.trial)
        fields["first request"] = _written(snapshot.trial)
    return fields


def _trial(trial: Trial) -> str:
    from aetherless_cli.plain import milliseconds

    text = (
        f"{len(trial.restores)} restores, median {milliseconds(trial.median):.1f} ms,"
        f" longest {milliseconds(trial.maximum):.1f} ms"
    )
    if trial.HasField("first_answer"):
        text += f"; first answer after {milliseconds(trial.first_answer):.1f} ms"
    return f"{text}; a limit of {milliseconds(trial.suggested_timeout):.0f} ms would do"


def _written(trial: Trial) -> str:
    """Say how the pages that the first request writes are restored, and why."""
    from aetherless_cli.output import size
    from aetherless_cli.plain import enum_word, milliseconds

    chosen = {"EAGER": "copied by the restore", "SHARED": "shared until then"}
    word = chosen.get(enum_word(trial, "page_choice"), "not measured")
    text = f"writes {size(trial.written_bytes)}, {word}"
    if trial.HasField("eager_answer"):
        text += (
            f": answered after {milliseconds(trial.shared_answer):.1f} ms with all pages shared,"
            f" {milliseconds(trial.eager_answer):.1f} ms with these copied"
        )
    if trial.measured_with:
        text += f" (measured with {trial.measured_with})"
    return text
