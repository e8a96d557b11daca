# SPDX-License-Identifier: Apache-2.0
"""Which revisions of a function are kept, and which one a rollback leads to. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless_registry import errors
from aetherless_registry.store import DEPLOYING, FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aetherless_registry.store import FunctionRecord

#: How many revisions are kept beside the one that serves.
KEPT_BESIDE_SERVING = 2


def kept(record: FunctionRecord) -> list[function_pb2.Revision]:
    """Return the earlier revisions that are kept, the one that served last first."""
    earlier = list(function_pb2.Function.FromString(record.kept).revisions)
    for each in earlier:
        each.state = function_pb2.REVISION_STATE_KEPT
    return earlier


def spec(record: FunctionRecord, number: int) -> function_pb2.FunctionSpec:
    """Return the declaration of a revision; what is declared now for one that is not known."""
    if number not in {record.revision, record.serving_revision}:
        found = [each.spec for each in kept(record) if each.revision == number]
        if found:
            return found[0]
    serves = number == record.serving_revision and number != record.revision
    return function_pb2.FunctionSpec.FromString(record.serving_spec if serves else record.spec)


def switched(record: FunctionRecord) -> FunctionRecord:
    """Return a function whose declared revision begins to serve; what served before is kept."""
    earlier = kept(record)
    if record.serving_revision:
        earlier.insert(0, _serving(record))
    earlier = [each for each in earlier if each.revision != record.revision]
    return replace(
        record,
        serving_revision=record.revision,
        serving_spec=record.spec,
        serving_time_ns=record.declare_time_ns,
        kept=_encode(earlier[:KEPT_BESIDE_SERVING]),
    )


def goal(record: FunctionRecord, number: int) -> function_pb2.Revision:
    """Return the revision that a rollback leads to.

    Args:
        record: the function.
        number: the revision; zero for the one before: what serves, when what is declared does not,
            else what served before it.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the number is negative.
        NotFound: REVISION_NOT_FOUND.
    """
    if number < 0:
        raise errors.invalid_argument("revision", "must not be negative")
    serving = [_serving(record)] if record.serving_revision else []
    possible = [*serving, *kept(record)]
    if number:
        found = [each for each in possible if each.revision == number]
    else:
        found = [each for each in possible if each.revision != record.revision]
    if not found:
        others = [each.revision for each in kept(record)]
        raise errors.revision_not_found(record.function_id, number, others)
    return found[0]


def rolled_back(
    record: FunctionRecord, wanted: function_pb2.Revision, now_ns: int
) -> FunctionRecord | None:
    """Return a function on its way to an earlier revision; None when it is on it, or there."""
    if wanted.revision == record.revision and record.deploy_state != FAILED:
        return None
    return replace(
        record,
        spec=wanted.spec.SerializeToString(deterministic=True),
        revision=wanted.revision,
        declare_time_ns=wanted.create_time.ToNanoseconds(),
        deploy_state=DEPLOYING,
        deploy_step="",
        deploy_error=b"",
        update_time_ns=now_ns,
    )


def goes_back(record: FunctionRecord) -> bool:
    """Tell whether what is declared is a revision that served before, or serves."""
    earlier = {each.revision for each in kept(record)}
    return record.revision in {record.serving_revision, *earlier}


def messages(record: FunctionRecord) -> list[function_pb2.Revision]:
    """Return all revisions that there are of a function, the newest first, with their states."""
    found = {each.revision: each for each in kept(record)}
    if record.deploy_state == DEPLOYING or record.revision not in found:
        failed = record.deploy_state == FAILED
        state = function_pb2.REVISION_STATE_FAILED if failed else _DEPLOYING
        found[record.revision] = _revision(
            record.revision, record.spec, record.declare_time_ns, state
        )
    if record.serving_revision:
        found[record.serving_revision] = _serving(record)
    return [found[number] for number in sorted(found, reverse=True)]


_DEPLOYING = function_pb2.REVISION_STATE_DEPLOYING


def _serving(record: FunctionRecord) -> function_pb2.Revision:
    """Return the revision that serves."""
    state = function_pb2.REVISION_STATE_SERVING
    return _revision(record.serving_revision, record.serving_spec, record.serving_time_ns, state)


def _revision(
    number: int, spec: bytes, time_ns: int, state: function_pb2.RevisionState.ValueType
) -> function_pb2.Revision:
    """Return a revision as its contract has it."""
    made = function_pb2.Revision(revision=number, state=state)
    made.spec.ParseFromString(spec)
    made.create_time.FromNanoseconds(time_ns)
    return made


def _encode(earlier: Sequence[function_pb2.Revision]) -> bytes:
    """Return kept revisions as the store keeps them: a Function that has nothing else."""
    return function_pb2.Function(revisions=earlier).SerializeToString(deterministic=True)
