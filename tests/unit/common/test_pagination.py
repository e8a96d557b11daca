# SPDX-License-Identifier: Apache-2.0
"""Pages by AIP-158."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless_common import errors
from aetherless_common.pagination import paginate


def same(name: str) -> str:
    """Return the item, which is its own key."""
    return name


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 40))
def test_pages_join_to_the_sorted_list(names: set[str], size: int) -> None:
    """Whatever the page's size, following the tokens gives every item once, in order."""
    got: list[str] = []
    token = ""
    while True:
        page, token = paginate(names, same, size, token)
        got += page
        assert len(page) <= size
        if not token:
            break
        assert len(page) == size
    assert got == sorted(names)


def test_changes_between_pages() -> None:
    """What comes and goes between two pages neither doubles nor hides the others."""
    first, token = paginate(["a", "b", "c", "d"], same, 2, "")
    second, end = paginate(["0", "a", "c", "d"], same, 2, token)
    assert (first, second, end) == (["a", "b"], ["c", "d"], "")


def test_size_defaults_and_is_coerced() -> None:
    """0 means 100; what is above 1000 means 1000."""
    names = [f"{number:05}" for number in range(2500)]
    assert len(paginate(names, same, 0, "")[0]) == 100
    assert len(paginate(names, same, 10**6, "")[0]) == 1000


@pytest.mark.parametrize(
    ("size", "token", "field"),
    [(-1, "", "page_size"), (1, "%%", "page_token"), (1, "YWJj", "page_token")],
)
def test_wrong_requests_are_refused(size: int, token: str, field: str) -> None:
    """A negative size and a token that is not ours name the field."""
    with pytest.raises(errors.InvalidArgument) as caught:
        paginate(["a"], same, size, token)
    assert caught.value.metadata["field"] == field
