# SPDX-License-Identifier: Apache-2.0
"""What the registry remembers, as an interface.

One counter numbers every change of every function. A change is written in one transaction with its
entry in the log of changes, so that a watcher can go on from any revision that is still kept.
``tests/conformance/test_registry_store.py`` says what an implementation owes.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    MakeAnswer = Callable[[Sequence["Change"]], "Answer"]

DEPLOYING = "DEPLOYING"
DEPLOYED = "DEPLOYED"
FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRecord:
    """A function as it is declared and as it stands.

    ``spec``, ``serving_spec``, ``kept`` and ``deploy_error`` are serialized messages that the store
    keeps without reading them. Times are nanoseconds since the epoch.
    """

    function_id: str
    # What is declared, and which revision that is, counted from 1; a rollback goes back in them.
    spec: bytes
    revision: int
    # The state's name as in machine.FunctionState.
    state: str
    # DEPLOYING, DEPLOYED or FAILED.
    deploy_state: str
    create_time_ns: int
    update_time_ns: int
    # The revision that serves; zero while none does.
    serving_revision: int = 0
    serving_spec: bytes = b""
    # The largest number that any revision of it has had: the next one gets a larger one.
    last_revision: int = 0
    # When ``revision`` and ``serving_revision`` were first declared.
    declare_time_ns: int = 0
    serving_time_ns: int = 0
    # The earlier revisions that are kept, as revisions.py writes them.
    kept: bytes = b""
    # The step that the deploy is at, or failed in.
    deploy_step: str = ""
    deploy_error: bytes = b""
    # Whether it is wished away.
    deleting: bool = False
    # The store's revision of the newest change; set by the store.
    mod_revision: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    """One change to make: ``record`` as it shall be, or its removal.

    ``record.mod_revision`` must be the stored one's, zero for a function that is not stored yet.
    """

    record: FunctionRecord
    remove: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change that was made; ``record`` is the function after it, or as it last was."""

    revision: int
    removed: bool
    record: FunctionRecord


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to remember for a request that may be repeated."""

    request_id: str
    # A digest of the request, so that another request with the same id is told apart.
    digest: str
    response: bytes


class StoreConflictError(Exception):
    """A function changed, appeared or vanished since the record was read."""

    def __init__(self, function_id: str) -> None:
        super().__init__(f"function {function_id} changed in the meantime")
        self.function_id = function_id


class CompactedError(Exception):
    """Changes were asked for that are not kept any more."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"changes up to revision {compact_revision} are not kept any more")
        self.compact_revision = compact_revision


class Store(abc.ABC):
    """Functions, a log of their changes, and answers given. Safe for use by many threads."""

    @abc.abstractmethod
    def revision(self) -> int:
        """Return the revision of the newest change; zero in a new store."""

    @abc.abstractmethod
    def get(self, function_id: str) -> FunctionRecord | None:
        """Return one function, or None."""

    @abc.abstractmethod
    def list(
        self, *, after: str = "", limit: int | None = None
    ) -> tuple[Sequence[FunctionRecord], int]:
        """Return the functions with an id above ``after``, by id, and the revision of the list."""

    @abc.abstractmethod
    def pipelines(self) -> Mapping[str, bytes]:
        """Return the declarations of all pipelines, by id; what is in them the store can't read."""

    @abc.abstractmethod
    def commit(
        self,
        writes: Sequence[Write],
        answer: MakeAnswer | None = None,
        pipelines: Mapping[str, bytes] | None = None,
    ) -> Sequence[Change]:
        """Make all changes or none, each with a revision of its own, in the order given.

        ``pipelines`` are declarations to be stored with them, which have no revision; an empty one
        is removed. ``answer`` makes, from the changes, the answer to remember with them. When this
        returns, they survive the death of the process and of the host.

        Raises:
            StoreConflictError: a record is not the one that was read.
        """

    @abc.abstractmethod
    def changes(self, start_revision: int, *, limit: int | None = None) -> Sequence[Change]:
        """Return the changes from ``start_revision`` on, oldest first.

        Raises:
            CompactedError: some of them are not kept any more.
        """

    @abc.abstractmethod
    def compact(self, revision: int) -> None:
        """Forget the changes up to ``revision``, but not the newest one's number."""

    @abc.abstractmethod
    def answer(self, request_id: str) -> Answer | None:
        """Return the answer that was given to a request, or None."""

    @abc.abstractmethod
    def forget_answers(self, keep: int) -> None:
        """Forget all answers but the ``keep`` newest."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Forget functions, pipelines, changes and answers.

        Revisions go on; older ones count as compacted.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of what the store holds open."""
