# SPDX-License-Identifier: Apache-2.0
"""One pipeline: what was declared, what ran through it, and its runs that are under way."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from aetherless_common.stages import Stage
from aetherless_ipc.stats import Stats

if TYPE_CHECKING:
    from aetherless_ipc.run import Run


class Delivery(Enum):
    """What becomes of a record when the process that has it dies."""

    AT_LEAST_ONCE = "at-least-once"
    AT_MOST_ONCE = "at-most-once"


@dataclass(frozen=True, slots=True)
class PipelineDeclaration:
    """What stays of a pipeline when the service is started again."""

    pipeline_id: str
    stages: tuple[Stage, ...]
    timeout_ms: int
    delivery: Delivery
    created_ns: int = field(default_factory=time.time_ns, compare=False)

    def same_way_as(self, other: PipelineDeclaration) -> bool:
        """Tell whether another one has the same stages and delivery."""
        return (self.stages, self.delivery) == (other.stages, other.delivery)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**dataclasses.asdict(self), "delivery": self.delivery.value}

    @classmethod
    def from_plain(cls, stored: dict[str, Any]) -> PipelineDeclaration:
        """Return what ``to_plain`` gave.

        Raises:
            TypeError, ValueError, KeyError: it is not that.
        """
        stages = [{**each, "sources": tuple(each["sources"])} for each in stored["stages"]]
        return cls(
            **{
                **stored,
                "stages": tuple(Stage(**each) for each in stages),
                "delivery": Delivery(stored["delivery"]),
            }
        )


@dataclass
class StageCount:
    """What became of runs at one stage."""

    records: int = 0
    failed: int = 0


class Pipeline:
    """A declared pipeline. Its runs' table is guarded by whoever keeps the pipelines.

    Args:
        declaration: what was declared.
        epoch: how many pipelines this service made before it.
    """

    def __init__(self, declaration: PipelineDeclaration, epoch: int = 0) -> None:
        self.declared = declaration
        # What stages are told: another one for each that is made, so that a process which has not
        # heard yet what became of a pipeline of the same id does not take the one for the other.
        self.wire_name = f"{declaration.pipeline_id[:54]}~{epoch}" if epoch else self.pipeline_id
        self.stats = Stats()
        self.stage_counts = [StageCount() for _ in declaration.stages]
        self.runs: dict[int, Run] = {}
        # Counts the deaths of processes that stood for a stage.
        self.losses = 0

    @property
    def pipeline_id(self) -> str:
        """Its id."""
        return self.declared.pipeline_id

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its stages, the first first."""
        return self.declared.stages

    @property
    def delivery(self) -> Delivery:
        """What becomes of a record when the process that has it dies."""
        return self.declared.delivery

    def stage(self, stage_id: str) -> Stage:
        """Return one of its stages."""
        return next(stage for stage in self.stages if stage.stage_id == stage_id)

    def number_of(self, function_id: str) -> int | None:
        """Return the number of the stage that a function is; None for none."""
        for number, stage in enumerate(self.stages):
            if stage.function_id == function_id:
                return number
        return None

    def gathering(self) -> list[str]:
        """Return the functions whose stages have several inputs."""
        return [stage.function_id for stage in self.stages if len(stage.sources) > 1]

    def become_declared(self, declaration: PipelineDeclaration) -> None:
        """Change what is declared, but not its stages and delivery."""
        self.declared = replace(declaration, created_ns=self.declared.created_ns)

    def count_end(self, run: Run) -> None:
        """Count, by stage, a run that is over.

        One with a result passed every stage; one that failed at a stage passed all that this one
        reads of. Of others it is not known how far they came.
        """
        if run.error is None:
            for each in self.stage_counts:
                each.records += 1
        elif run.failed_at is not None:
            self.stage_counts[run.failed_at].failed += 1
            for ahead in self._ahead_of(run.failed_at):
                self.stage_counts[ahead].records += 1

    def _ahead_of(self, number: int) -> set[int]:
        """Return the numbers of the stages that a run passes before it comes to one."""
        numbers = {stage.stage_id: index for index, stage in enumerate(self.stages)}
        found: set[int] = set()
        waiting = [number]
        while waiting:
            for source in self.stages[waiting.pop()].sources:
                if numbers[source] not in found:
                    found.add(numbers[source])
                    waiting.append(numbers[source])
        return found
