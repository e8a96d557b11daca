# SPDX-License-Identifier: Apache-2.0
"""A store that dies with its process: for tests, held to the same promises as the real one."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless_registry.store import (
    Answer,
    Change,
    CompactedError,
    FunctionRecord,
    Store,
    StoreConflictError,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aetherless_registry.store import MakeAnswer


class MemoryStore(Store):
    """Keeps everything in dictionaries."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._functions: dict[str, FunctionRecord] = {}
        self._changes: list[Change] = []
        self._answers: dict[str, Answer] = {}
        self._pipelines: dict[str, bytes] = {}
        self._revision = 0
        self._compacted = 0

    def revision(self) -> int:
        """See Store."""
        return self._revision

    def get(self, function_id: str) -> FunctionRecord | None:
        """See Store."""
        return self._functions.get(function_id)

    def list(
        self, *, after: str = "", limit: int | None = None
    ) -> tuple[Sequence[FunctionRecord], int]:
        """See Store."""
        with self._lock:
            found = [self._functions[key] for key in sorted(self._functions) if key > after]
            return found[:limit], self._revision

    def pipelines(self) -> Mapping[str, bytes]:
        """See Store."""
        with self._lock:
            return dict(sorted(self._pipelines.items()))

    def commit(
        self,
        writes: Sequence[Write],
        answer: MakeAnswer | None = None,
        pipelines: Mapping[str, bytes] | None = None,
    ) -> Sequence[Change]:
        """See Store."""
        with self._lock:
            functions = dict(self._functions)
            made = [_apply(functions, w, self._revision + 1 + n) for n, w in enumerate(writes)]
            if answer is not None:
                given = answer(made)
                self._answers[given.request_id] = given
            self._functions = functions
            changed = {**self._pipelines, **(pipelines or {})}
            self._pipelines = {key: spec for key, spec in changed.items() if spec}
            self._revision += len(made)
            self._changes += made
            return made

    def changes(self, start_revision: int, *, limit: int | None = None) -> Sequence[Change]:
        """See Store."""
        with self._lock:
            if start_revision <= self._compacted:
                raise CompactedError(self._compacted)
            return [c for c in self._changes if c.revision >= start_revision][:limit]

    def compact(self, revision: int) -> None:
        """See Store."""
        with self._lock:
            self._compacted = max(self._compacted, min(revision, self._revision))
            self._changes = [c for c in self._changes if c.revision > self._compacted]

    def answer(self, request_id: str) -> Answer | None:
        """See Store."""
        return self._answers.get(request_id)

    def forget_answers(self, keep: int) -> None:
        """See Store."""
        with self._lock:
            kept = list(self._answers.values())[max(0, len(self._answers) - keep) :]
            self._answers = {answer.request_id: answer for answer in kept}

    def clear(self) -> None:
        """See Store."""
        with self._lock:
            self._functions.clear()
            self._answers.clear()
            self._pipelines.clear()
            self.compact(self._revision)

    def close(self) -> None:
        """See Store."""


def _apply(functions: dict[str, FunctionRecord], write: Write, revision: int) -> Change:
    """Make one change in ``functions``."""
    function_id = write.record.function_id
    stored = functions.get(function_id)
    if (stored.mod_revision if stored else 0) != write.record.mod_revision or (
        write.remove and stored is None
    ):
        raise StoreConflictError(function_id)
    record = replace(write.record, mod_revision=revision)
    if write.remove:
        del functions[function_id]
    else:
        functions[function_id] = record
    return Change(revision, write.remove, record)
