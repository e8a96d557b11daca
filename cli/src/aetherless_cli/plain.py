# SPDX-License-Identifier: Apache-2.0
"""Messages as plain data with the contract's field names, for ``-o json`` and ``-o yaml``.

As protobuf's JSON mapping with the original field names, but that 64-bit numbers stay numbers and
fields without a value are written out.
"""

from __future__ import annotations

from typing import Any


def to_plain(message: Any) -> Any:
    """Return a message as dicts, lists, strings, numbers and None."""
    name = message.DESCRIPTOR.full_name
    if name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
        return message.ToJsonString()
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def without_values(message: Any) -> Any:
    """Return a function as ``to_plain`` does, with the values of its environment left out."""
    data = to_plain(message)
    for spec in (data["spec"], *(each["spec"] for each in data["revisions"])):
        if spec:
            spec["environment"] = {key: hidden(value) for key, value in spec["environment"].items()}
    return data


def hidden(value: str) -> str:
    """Return what stands for a value that may be secret; nothing for none."""
    return "(hidden)" if value else ""


def milliseconds(duration: Any) -> float:
    """Return a google.protobuf.Duration in milliseconds."""
    return round(float(duration.seconds * 1000 + duration.nanos / 1e6), 6)


def enum_word(message: Any, field: str) -> str:
    """Return an enum field's value without its prefix: FUNCTION_STATE_RUNNING is RUNNING."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    zero = enum.values_by_number[0].name
    return str(value.name).removeprefix(zero.removesuffix("UNSPECIFIED"))


def _field(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, item) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value
