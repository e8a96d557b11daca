# SPDX-License-Identifier: Apache-2.0
"""The configuration as a JSON Schema, for editors."""

from __future__ import annotations

from typing import Any

from aetherless_cli.config.models import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of a whole file, with a description of each key.

    What only ``validate`` can know is not in it: whether files exist, and that ids and ports are
    unique.
    """
    schema = _plain(Config.model_json_schema())
    return {"$schema": DIALECT, **schema, "title": "Aetherless configuration"}


def _plain(schema: Any) -> Any:
    """Leave out what is noise in an editor: generated titles, and null for a key left out."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not _is_noise(key, value)}
    alternatives = [each for each in kept.pop("anyOf", ()) if each != {"type": "null"}]
    if len(alternatives) == 1:
        kept = {**alternatives[0], **kept}
    elif alternatives:
        kept["anyOf"] = alternatives
    return {key: _plain(value) for key, value in kept.items()}


def _is_noise(key: str, value: Any) -> bool:
    """Tell whether an entry of a schema says nothing to a reader."""
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
