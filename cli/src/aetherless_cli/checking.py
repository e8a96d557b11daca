# SPDX-License-Identifier: Apache-2.0
"""Has the registry check programs, and judges what it says.

Where no orchestrator is up, the services that it takes are started for a moment.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import check_pb2, function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import orchestrator, passing
from aetherless_cli.client import mesh
from aetherless_cli.following import followed
from aetherless_cli.output import error_data
from aetherless_cli.plain import milliseconds, to_plain
from aetherless_cli.preflight import check_host, require
from aetherless_cli.reasons import error_of
from aetherless_common.channels import is_serving
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aetherless_cli.client import Mesh
    from aetherless_cli.console import Console
    from aetherless_common.settings import Settings

SERVICES = ("snapshotter", "netplane", "ipc", "registry")
PROBE = 0.5
REFUSED = check_pb2.FINDING_SEVERITY_REFUSED
WARNING = check_pb2.FINDING_SEVERITY_WARNING


@dataclass
class Outcome:
    """What a check of one program showed.

    Attributes:
        limit_ms: the restore timeout that is declared; zero when none is.
        error: why it would not be deployed; None when it would.
    """

    spec: function_pb2.FunctionSpec
    limit_ms: float = 0
    findings: Sequence[check_pb2.Finding] = ()
    report: check_pb2.CheckReport | None = None
    step: str = ""
    error: AetherlessError | None = field(default=None)

    @property
    def restores(self) -> list[float]:
        """The restores that were tried, in milliseconds."""
        return [milliseconds(each) for each in self.report.restores] if self.report else []

    @property
    def verdict(self) -> str:
        """One word: refused, failed, late, warnings or fine."""
        refused = self.error is not None and self.error.reason == "NOT_CHECKPOINTABLE"
        if refused or any(each.severity == REFUSED for each in self.findings):
            return "refused"
        if self.report is None:
            return "failed"
        if self.error is not None:
            return "late"
        warned = any(each.severity == WARNING for each in self.findings)
        return "warnings" if warned else "fine"

    def data(self) -> dict[str, Any]:
        """Return it as plain data with stable field names."""
        report = to_plain(self.report) if self.report else None
        if report:
            del report["findings"]  # they stand beside it, also when there is no report
        return {
            "id": self.spec.function_id,
            "handler_path": self.spec.handler_path,
            "verdict": self.verdict,
            "findings": [to_plain(each) for each in self.findings],
            "report": report,
            "restore_p50_ms": median(self.restores) if self.restores else None,
            "restore_max_ms": max(self.restores) if self.restores else None,
            "error": error_data(self.error) if self.error else None,
        }


@contextmanager
def registry(settings: Settings, console: Console) -> Iterator[Mesh]:
    """Give the services of the running orchestrator, or of one for this check alone.

    Raises:
        FailedPrecondition: HOST_NOT_READY.
        Unavailable: SERVICE_START_FAILED.
    """
    if is_up(settings):
        with mesh(settings) as services:
            yield services
        return
    require(check_host(settings), console)
    console.passing("starting the services for a moment")
    with passing.folders(settings, "check") as own:
        try:
            with passing.services(own, SERVICES), mesh(own) as services:
                yield services
        except AetherlessError:
            passing.keep_logs(settings, own)
            raise
        finally:
            console.passing("taking the services down")
            passing.take_down(own, console)


def check(services: Mesh, outcome: Outcome, restores: int, console: Console) -> None:
    """Check one program; what is found out is in ``outcome``, errors included."""
    name = outcome.spec.function_id
    request = messages.CheckHandlerRequest(spec=outcome.spec, restores=restores)
    try:
        with followed(lambda: services.registry.CheckHandler(request)) as responses:
            for response in responses:
                _take(outcome, response)
                if outcome.step:
                    console.passing(f"{name}: {outcome.step} ...")
    except AetherlessError as error:
        outcome.error = error
        return
    if outcome.limit_ms and outcome.restores and max(outcome.restores) > outcome.limit_ms:
        outcome.error = _late(outcome)


def _take(outcome: Outcome, response: messages.CheckHandlerResponse) -> None:
    """Take over what one response tells."""
    if response.HasField("progress"):
        progress = response.progress
        if progress.state != function_pb2.PROGRESS_STATE_DONE:
            outcome.step = progress.phase or progress.step
    if response.findings:
        outcome.findings = response.findings
    if response.HasField("report"):
        outcome.report = response.report
        outcome.findings = response.report.findings


def _late(outcome: Outcome) -> AetherlessError:
    """Return the error that a deploy would fail with for the restores' times."""
    name, longest = outcome.spec.function_id, max(outcome.restores)
    enough = milliseconds(outcome.report.suggested_restore_timeout) if outcome.report else 0
    return error_of(
        "snapshotter.aetherless",
        "RESTORE_LATENCY_VIOLATION",
        f"a restore of {name} took {longest:.1f} ms, more than its limit of"
        f" {outcome.limit_ms:.0f} ms",
        {
            "function": name,
            "limitMs": f"{outcome.limit_ms:.0f}",
            "tookMs": f"{longest:.1f}",
            "suggestedMs": f"{enough:.0f}",
            "remedy": f"set restore_timeout_ms to {enough:.0f}, or make the function's memory"
            " smaller",
        },
    )


def is_up(settings: Settings) -> bool:
    """Tell whether there is an orchestrator that can be asked."""
    if orchestrator.supervisor_process(settings):
        return True
    if not settings.socket_path("registry").exists():
        return False
    try:
        return is_serving(settings, "registry", PROBE)
    except AetherlessError:
        return False
