# SPDX-License-Identifier: Apache-2.0
"""Pages of a list, by the rules of AIP-158."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from typing import TYPE_CHECKING, TypeVar

from aetherless_common.errors import invalid_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
DEFAULT_SIZE = 100
LARGEST_SIZE = 1000


def paginate(
    items: Iterable[T], key: Callable[[T], str], page_size: int, page_token: str
) -> tuple[list[T], str]:
    """Return one page of the items, sorted by their unique ``key``, and the next page's token.

    A page size of 0 means 100, one above 1000 means 1000. The token is empty at the end. Items
    that come or go between two pages make no other item appear twice or be left out.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the size is negative or the token is not one of ours.
    """
    size = size_of(page_size)
    ordered = sorted(items, key=key)
    start = bisect_right(ordered, decode_token(page_token), key=key) if page_token else 0
    page = ordered[start : start + size]
    more = start + size < len(ordered)
    return page, encode_token(key(page[-1])) if more else ""


def size_of(page_size: int) -> int:
    """Return how many items a page has.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the size is negative.
    """
    if page_size < 0:
        raise invalid_argument("page_size", f"must not be negative, is {page_size}")
    return min(page_size or DEFAULT_SIZE, LARGEST_SIZE)


def encode_token(last: str) -> str:
    """Return the token of the page after the item with this key."""
    return base64.urlsafe_b64encode(b"1" + last.encode()).decode()


def decode_token(token: str) -> str:
    """Return the key that a token stands for.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the token is not one of ours.
    """
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not text.startswith("1"):
        raise invalid_argument("page_token", "is not a token of this list")
    return text[1:]
