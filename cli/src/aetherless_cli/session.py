# SPDX-License-Identifier: Apache-2.0
"""The course of ``aetherctl up``, from the first check to the last wake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.netplane.v1 import netplane_service_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2
from aetherless_cli import errors, orchestrator, preflight
from aetherless_cli.client import Mesh, mesh
from aetherless_cli.declaration import pipelines_of, specs_of
from aetherless_cli.interruption import Interrupted, interruptible, undisturbed
from aetherless_cli.live import Changes, changes
from aetherless_cli.output import remedy_of
from aetherless_cli.planning import Planner
from aetherless_cli.removal import Removal
from aetherless_cli.rollout import Rollout
from aetherless_cli.wakes import show_wakes
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from aetherless_cli.config import Config
    from aetherless_cli.console import Console


class Session:
    """One ``up``. What it started it takes down again when nothing could be deployed."""

    def __init__(self, config: Config, console: Console) -> None:
        self._config = config
        self._console = console
        found = Settings.load()
        running = orchestrator.supervisor_process(found) is not None
        self._settings = orchestrator.settings_for(config, found, running=running)
        self._started = False
        self._serving = False
        self._rollout: Rollout | None = None

    def run(self, *, foreground: bool) -> None:
        """Bring everything up; with ``foreground`` stay until a signal, then take it down.

        Raises:
            AetherlessError: what failed first.
        """
        staying = False
        try:
            with interruptible():
                self._start()
                with mesh(self._settings) as services, changes(services) as stream:
                    self._deploy(services, stream, foreground=foreground)
                    if foreground:
                        staying = True
                        self._stay(stream)
        except Interrupted as interrupted:
            self._interrupted(interrupted, foreground=foreground, staying=staying)
        except BaseException as error:
            gone = self._was_taken_down()
            if self._started and (foreground or not self._serves_something()):
                self._give_up()
            if gone and isinstance(error, AetherlessError):
                raise errors.taken_down() from error
            raise

    def _start(self) -> None:
        preflight.require(preflight.check_host(self._settings), self._console)
        with orchestrator.lock(self._settings, self._console):
            if self._alive():
                orchestrator.refuse_other_settings(self._settings)
            else:
                self._console.passing("starting the services")
                self._started = True
                orchestrator.start(self._settings)
            orchestrator.wait_serving(self._settings)
        self._serving = True
        self._console.line("the four services serve", event="serving")

    def _deploy(self, services: Mesh, stream: Changes, *, foreground: bool) -> None:
        if self._started:
            self._console.passing("checking the host")
            preflight.require(service_checks(services), self._console)
        rollout = self._rollout = Rollout(services, stream, self._console, self._alive)
        with self._console.busy("looking at the functions' files"):
            specs = specs_of(self._config, self._settings.restore_timeout_ms)
        pipelines = pipelines_of(self._config)
        Planner(services, self._console, specs, pipelines).carry_out(rollout)
        rollout.follow()
        finish(rollout, self._console, goes_on=not (foreground and self._started))

    def _stay(self, stream: Changes) -> None:
        text = "each wake is one line from here on; Ctrl-C takes everything down"
        self._console.line(text, event="ready")
        show_wakes(stream, self._console, self._alive)
        while self._taken_over():
            show_wakes(stream, self._console, self._alive)
        self._console.line("the orchestrator was taken down elsewhere", event="gone")

    def _taken_over(self) -> bool:
        """Start another supervisor if the one before was killed; it adopts the services."""
        with orchestrator.lock(
            self._settings, self._console
        ):  # a ``down`` that ends it removes its pid file
            if not self._settings.pid_path("supervisor").exists():
                return False
            orchestrator.start(self._settings)
        self._console.line("the supervisor was killed; another one took over", event="takeover")
        return True

    def _interrupted(self, signal: Interrupted, *, foreground: bool, staying: bool) -> None:
        if foreground or self._started:
            self._take_down(f"{signal}: taking everything down")
        if not staying:
            raise errors.interrupted("aetherctl up") from signal

    def _give_up(self) -> None:
        """Take down what was started; what fails in it must not hide why this is done."""
        try:
            self._take_down("taking down what was started")
        except AetherlessError as error:
            text = f"{error.reason}: {error.message}; run 'aetherctl down' again"
            self._console.line(text, event="error", reason=error.reason)

    def _take_down(self, why: str) -> None:
        with undisturbed():
            self._console.line(why, event="down")
            with orchestrator.lock(self._settings, self._console):
                Removal(self._settings, self._console).run()
            self._console.line("everything is taken down", event="gone")

    def _alive(self) -> bool:
        return orchestrator.supervisor_process(self._settings) is not None

    def _was_taken_down(self) -> bool:
        """Tell whether a ``down`` ended what this command started: it removes the pid file."""
        return self._serving and not self._settings.pid_path("supervisor").exists()

    def _serves_something(self) -> bool:
        return bool(self._rollout and self._rollout.deployed)


def service_checks(services: Mesh, *, force: bool = False) -> list[preflight.Check]:
    """Return what the snapshotter and the netplane say of the host, a real restore included."""
    told: Any = services.snapshotter.CheckHost(
        snapshotter_service_pb2.CheckHostRequest(force=force)
    )
    found = preflight.from_service("snapshotter", told.checks)
    told = services.netplane.CheckHost(netplane_service_pb2.CheckHostRequest())
    return found + preflight.from_service("netplane", told.checks)


def finish(rollout: Rollout, console: Console, *, goes_on: bool = True) -> None:
    """Return when everything was deployed; say what ``goes_on`` serving when not.

    Raises:
        AetherlessError: why the first of those that failed did; the others are printed.
    """
    if not rollout.failed:
        return
    first, *others = rollout.failed.values()
    told = {remedy_of(first)}  # what is raised is told with its remedy, after all others
    for error in others:
        remedy = remedy_of(error)
        text = _told(error, "" if remedy in told else remedy)
        console.line(text, event="error", reason=error.reason, remedy=remedy)
        told.add(remedy)
    if rollout.deployed and goes_on:
        names = ", ".join(sorted(rollout.deployed))
        console.line(f"the orchestrator goes on, and serves: {names}", event="partial")
    raise first


def _told(error: AetherlessError, remedy: str) -> str:
    """Return what is said of an error beside the first: its log lines, and a remedy that is new."""
    log = error.metadata.get("log", "").rstrip()
    lines = [f"{error.reason}: {error.message}"]
    if log:
        lines += ["  last log lines:", *(f"    {line}" for line in log.split("\n"))]
    if remedy:
        lines.append(f"remedy: {remedy}")
    return "\n".join(lines)
