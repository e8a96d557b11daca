# SPDX-License-Identifier: Apache-2.0
"""What a declaration changes, field by field. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import registry_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import FieldDescriptor

    from aetherless.registry.v1 import function_pb2


def differences(
    before: function_pb2.FunctionSpec, after: function_pb2.FunctionSpec
) -> list[registry_service_pb2.FieldChange]:
    """Return the fields that differ, as text, in the contract's order; entries of maps apart."""
    told = [change for field in before.DESCRIPTOR.fields for change in _field(field, before, after)]
    return [
        registry_service_pb2.FieldChange(field=path, before=old, after=new)
        for path, old, new in told
        if old != new
    ]


def _field(
    field: FieldDescriptor, before: function_pb2.FunctionSpec, after: function_pb2.FunctionSpec
) -> Iterator[tuple[str, str, str]]:
    """Yield path, old and new value of a field; of a map, of each of its entries."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        old, new = getattr(before, field.name), getattr(after, field.name)
        for key in sorted({*old, *new}):
            yield f"{field.name}.{key}", _entry(old, key), _entry(new, key)
    else:
        yield field.name, _text(field, before), _text(field, after)


def _entry(entries: Mapping[str, str], key: str) -> str:
    """Return a map's entry as text; one that is there and empty is told from one that is not."""
    return (entries[key] or '""') if key in entries else ""


def _text(field: FieldDescriptor, spec: function_pb2.FunctionSpec) -> str:
    """Return a field's value as text; what is not set is empty."""
    value: Any = getattr(spec, field.name)
    if field.is_repeated:
        return ", ".join(value)
    if field.message_type is not None:
        return str(value.ToJsonString()) if spec.HasField(field.name) else ""  # type: ignore[arg-type]
    if field.enum_type is not None:
        zero = str(field.enum_type.values_by_number[0].name)
        name = str(field.enum_type.values_by_number[value].name)
        return name.removeprefix(zero.removesuffix("UNSPECIFIED")) if value else ""
    return str(value) if value else ""
