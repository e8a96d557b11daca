# SPDX-License-Identifier: Apache-2.0
"""What a declaration will change: asked of the registry, shown, and then done as it was shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli.plain import enum_word, hidden, to_plain
from aetherless_common.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aetherless.registry.v1.function_pb2 import FunctionSpec
    from aetherless.registry.v1.pipeline_pb2 import PipelineSpec
    from aetherless_cli.client import Mesh
    from aetherless_cli.console import Console
    from aetherless_cli.rollout import Rollout

# How often a declaration is planned again because functions changed in between. A function that
# wakes or is evicted changes, too, but not what a declaration does to it.
ATTEMPTS = 20
ENVIRONMENT = "environment."
COLOURS = {"CREATE": "32", "UPDATE": "33", "RETRY": "33", "UNCHANGED": "2", "DELETE": "31"}


class Planner:
    """Plans a declaration of functions and pipelines, and makes it.

    Args:
        mesh: the services.
        console: where the plan is shown.
        specs: the functions.
        pipelines: the pipelines.
        prune: whether functions and pipelines that are not among them are deleted.
        show_values: whether values of environment variables are shown.
    """

    def __init__(
        self,
        mesh: Mesh,
        console: Console,
        specs: Sequence[FunctionSpec],
        pipelines: Sequence[PipelineSpec] = (),
        *,
        prune: bool = False,
        show_values: bool = False,
    ) -> None:
        self._mesh = mesh
        self._console = console
        self._specs = specs
        self._pipelines = pipelines
        self._prune = prune
        self._show_values = show_values

    def show(self) -> messages.ApplyConfigResponse:
        """Ask for the plan, and show it.

        Raises:
            AetherlessError: the registry refuses the declaration, or does not answer.
        """
        answer = self._ask()
        lines = [line for each in answer.plan for line in self._lines(each)]
        lines += [line for each in answer.pipeline_plan for line in self._pipeline_lines(each)]
        told = {
            "functions": [self._data(each) for each in answer.plan],
            "pipelines": [to_plain(each) for each in answer.pipeline_plan],
        }
        self._console.line("\n".join(lines), event="plan", **told)
        return answer

    def carry_out(self, rollout: Rollout) -> None:
        """Show the plan, then declare exactly that.

        Raises:
            Aborted: ETAG_MISMATCH, something else would happen now than was shown.
            AetherlessError: the registry refuses the declaration, or does not answer.
        """
        answer = shown = self.show()
        for left in reversed(range(ATTEMPTS)):
            try:
                return rollout.declare(
                    self._specs, self._pipelines, prune=self._prune, planned=answer
                )
            except Aborted as error:
                if error.reason != "ETAG_MISMATCH" or not left:
                    raise
                answer = self._ask()
                if _content(answer) != _content(shown):
                    raise
        return None

    def _ask(self) -> messages.ApplyConfigResponse:
        """Return what would be answered to the declaration, with the plan."""
        request = messages.ApplyConfigRequest(
            functions=self._specs,
            pipelines=self._pipelines,
            prune=self._prune,
            validate_only=True,
        )
        return self._mesh.registry.ApplyConfig(request)

    def _lines(self, plan: messages.FunctionPlan) -> Iterator[str]:
        """Yield what happens to a function, for people."""
        action = enum_word(plan, "action")
        word = self._console.paint(action.lower(), COLOURS[action])
        number = f" to revision {plan.revision}" if action in {"UPDATE", "RETRY"} else ""
        yield f"{plan.function_id}: {word}{number}"
        changes = [self._change(each) for each in plan.changes]
        width = max((len(field) for field, _, _ in changes), default=0)
        for field, before, after in changes:
            if field == "source_digest":
                yield f"    {'files'.ljust(width)}  changed"
            else:
                yield f"    {field.ljust(width)}  {before or '-'} → {after or '-'}"

    def _pipeline_lines(self, plan: messages.PipelinePlan) -> Iterator[str]:
        """Yield what happens to a pipeline, for people."""
        action = enum_word(plan, "action")
        word = self._console.paint(action.lower(), COLOURS[action])
        yield f"pipeline {plan.pipeline_id}: {word}"
        width = max((len(each.field) for each in plan.changes), default=0)
        for each in plan.changes:
            yield f"    {each.field.ljust(width)}  {each.before or '-'} → {each.after or '-'}"

    def _data(self, plan: messages.FunctionPlan) -> dict[str, Any]:
        """Return what happens to a function, for programs."""
        fields = ("field", "before", "after")
        changes = [dict(zip(fields, self._change(each), strict=True)) for each in plan.changes]
        return {**to_plain(plan), "changes": changes}

    def _change(self, change: messages.FieldChange) -> tuple[str, str, str]:
        """Return a changed field with its values, unless they may be secret."""
        before, after = change.before, change.after
        if change.field.startswith(ENVIRONMENT) and not self._show_values:
            before, after = hidden(before), hidden(after)
        return change.field, before, after


def _content(answer: messages.ApplyConfigResponse) -> bytes:
    """Return what a plan says, whatever its etags are."""
    copy = messages.ApplyConfigResponse(plan=answer.plan, pipeline_plan=answer.pipeline_plan)
    for function in copy.plan:
        function.etag = ""
    for pipeline in copy.pipeline_plan:
        pipeline.etag = ""
    return copy.SerializeToString(deterministic=True)
