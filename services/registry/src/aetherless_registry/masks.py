# SPDX-License-Identifier: Apache-2.0
"""Field masks of an update, as AIP-134 and AIP-161 have them. Pure.

Paths are relative to the function: ``spec.environment``, ``spec.timeout``, ``spec`` for all of it,
``spec.environment.KEY`` for one entry of a map. Whatever is not the spec is output-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless_registry import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor

EVERYTHING = "*"
SPEC = "spec"


def merged(
    present: function_pb2.FunctionSpec, wanted: function_pb2.FunctionSpec, paths: Sequence[str]
) -> function_pb2.FunctionSpec:
    """Return a declaration with what an update changes of it.

    Args:
        present: what is declared now.
        wanted: holds the new values.
        paths: the mask; empty means all fields that are set in ``wanted``, "*" all there are.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, a path is not known, or the function's id would change.
    """
    chosen = paths or [f"{SPEC}.{field.name}" for field, _ in wanted.ListFields()]
    result = function_pb2.FunctionSpec()
    result.CopyFrom(present)
    for path in chosen:
        _take(result, wanted, path)
    if result.function_id not in {"", present.function_id}:
        raise errors.invalid_argument("function.spec.function_id", "can't be changed")
    result.function_id = present.function_id
    return result


def _take(result: function_pb2.FunctionSpec, wanted: function_pb2.FunctionSpec, path: str) -> None:
    """Take over what one path names."""
    top, _, rest = path.partition(".")
    if path in {EVERYTHING, SPEC}:
        result.CopyFrom(wanted)
    elif not _is_known(function_pb2.Function.DESCRIPTOR, path):
        raise errors.invalid_argument("update_mask", f"there is no field {path!r}")
    elif top == SPEC:
        name, _, key = rest.partition(".")
        _take_field(result, wanted, name, key)


def _take_field(
    result: function_pb2.FunctionSpec, wanted: function_pb2.FunctionSpec, name: str, key: str
) -> None:
    """Take over one field of the spec, or one entry of a map in it; an absent one is removed."""
    if not key:
        result.ClearField(name)  # type: ignore[arg-type]  # a known field's name
        only = function_pb2.FunctionSpec()
        only.CopyFrom(wanted)
        for other in only.DESCRIPTOR.fields:
            if other.name != name:
                only.ClearField(other.name)  # type: ignore[arg-type]  # a known field's name
        result.MergeFrom(only)
        return
    entries, new = getattr(result, name), getattr(wanted, name)
    if key in new:
        entries[key] = new[key]
    else:
        entries.pop(key, None)


def _is_known(descriptor: Descriptor, path: str) -> bool:
    """Tell whether a path leads to a field, or to an entry of a map."""
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None or not rest:
        return field is not None and path == name
    if field.message_type is None:
        return False
    if field.message_type.GetOptions().map_entry:
        return True
    # Below a duration or the like nothing is changed by itself.
    own = field.message_type.file.name == descriptor.file.name
    return own and not field.is_repeated and _is_known(field.message_type, rest)
