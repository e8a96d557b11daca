# SPDX-License-Identifier: Apache-2.0
"""Answers that are remembered, so that a request which is repeated gets its first one (AIP-155)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

from aetherless_registry import errors
from aetherless_registry.store import Answer

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless_registry.store import Store

    Repeatable = (
        messages.ApplyConfigRequest
        | messages.UpdateFunctionRequest
        | messages.RollbackFunctionRequest
    )
    Response = TypeVar("Response", bound=Message)


def remembered(store: Store, request: Repeatable, response_type: type[Response]) -> Response | None:
    """Return the answer that the request was given before, if it was.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the id was used for another request.
    """
    given = store.answer(request.request_id) if request.request_id else None
    if given is None:
        return None
    if given.digest != _digest(request):
        raise errors.invalid_argument("request_id", "was used for another request")
    return response_type.FromString(given.response)


def answer(request: Repeatable, response: Message) -> Answer:
    """Return the answer to remember for a request."""
    return Answer(request.request_id, _digest(request), response.SerializeToString())


def _digest(request: Message) -> str:
    """Return what tells two requests apart."""
    told = hashlib.sha256(request.DESCRIPTOR.full_name.encode())
    told.update(request.SerializeToString(deterministic=True))
    return told.hexdigest()
