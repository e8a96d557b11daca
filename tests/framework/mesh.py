# SPDX-License-Identifier: Apache-2.0
"""A whole orchestrator of a test's own: folders, ports, services, and the command line it runs."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import yaml

from aetherless_common.settings import SERVICES, Settings

from .contracts import Contracts
from .hostfacts import RESERVED_PORTS
from .processes import Process, in_group, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = REPOSITORY / ".venv" / "bin"
UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
# Below the range that the kernel hands out to clients by itself.
PORTS = range(18000, 30000)
# Ports that were told of and are perhaps not bound yet.
_told: deque[int] = deque(maxlen=2000)
UP_TIMEOUT_S = 180.0
COMMAND_TIMEOUT_S = 60.0
CLEANUP_ORDER = ("registry", "ipc", "snapshotter", "netplane")


def is_free(port: int) -> bool:
    """Say whether a TCP port can be bound on every address."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("::", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a TCP port that nobody has, nor was told of lately; no client gets it by itself."""
    candidates = (port for port in random.sample(PORTS, len(PORTS)) if port not in _told)
    port = next(port for port in candidates if is_free(port))
    _told.append(port)
    return port


@dataclass
class Function:
    """One function's entry in the configuration.

    Arguments:
        id: The function's id.
        handler: The handler's absolute path.
        port: The trigger port; a free one by default, 0 for none.
        memory_mb: The memory limit, in MiB.
        keys: Further keys of the entry.
    """

    id: str
    handler: Path
    port: int = field(default_factory=free_port)
    memory_mb: int = 256
    keys: dict[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Return the entry as the configuration file has it."""
        return {
            "id": self.id,
            "memory_limit_mb": self.memory_mb,
            **({"trigger_port": self.port} if self.port else {}),
            "handler_path": str(self.handler),
            "timeout_ms": 30000,
            **self.keys,
        }


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


class Orchestrator:
    """An orchestrator with folders of its own, driven as a user does, through ``aetherctl``.

    As a context manager it takes everything down at the end, whatever happened.

    Arguments:
        functions: What its configuration declares.
        settings: Keys of the configuration's ``orchestrator`` section beside the tests' defaults.
    """

    living: ClassVar[list[Orchestrator]] = []
    all_marks: ClassVar[list[str]] = []

    def __init__(self, functions: Sequence[Function] = (), **settings: Any) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="aether-t", dir="/run"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AETHER_")},
            "AETHER_RUNTIME_DIR": str(self.home / "r"),
            "AETHER_STATE_DIR": str(self.home / "s"),
        }
        self.settings = Settings.load(self.environment)
        self.functions = list(functions)
        self.pipelines: list[dict[str, Any]] = []
        self.keys = {"restore_timeout_ms": 2000, **settings}
        self.config = self.home / "aetherless.yaml"
        self.contracts = Contracts(self.settings)
        self.write_config()
        self.all_marks.extend(self.marks)

    @property
    def id(self) -> str:
        """The orchestrator id that is in every name on the host."""
        return self.settings.orchestrator_id

    @property
    def marks(self) -> list[str]:
        """Texts that only this orchestrator's objects on the host bear."""
        return [self.id, str(self.home)]

    @property
    def port_marks(self) -> list[str]:
        """What the host's list of settings says of the trigger ports it reserved."""
        return [
            f"{RESERVED_PORTS} has {function.port}" for function in self.functions if function.port
        ]

    @property
    def group(self) -> Path:
        """Its control group in the cgroup v2 hierarchy."""
        return next(top for top in UNIFIED if (top / "cgroup.procs").exists()) / (
            self.settings.cgroup_name
        )

    @classmethod
    def living_marks(cls) -> list[str]:
        """Return the marks of all that are up, and what marks the ports of their functions."""
        return [mark for running in cls.living for mark in (*running.marks, *running.port_marks)]

    def __enter__(self) -> Self:
        """Join the living ones, whose logs a failing test shows."""
        self.living.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down, and the folders away."""
        try:
            self.tear_down()
        finally:
            self.living.remove(self)

    def write_config(self) -> None:
        """Write the configuration file as the functions stand."""
        entries = [function.entry() for function in self.functions]
        content = {"orchestrator": self.keys, "functions": entries, "pipelines": self.pipelines}
        self.config.write_text(yaml.safe_dump(content, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of ``aetherctl`` with this configuration."""
        return [str(BIN / "aetherctl"), "-c", str(self.config), *arguments]

    def ctl(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run ``aetherctl`` and return how it ended; TimeoutExpired when it does not."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run ``aetherctl``; AssertionError with its words when it fails."""
        done = self.ctl(*arguments, timeout_s=timeout_s)
        assert done.status == 0, f"aetherctl {arguments} -> {done.status}\n{done.out}{done.err}"
        return done

    def up(self) -> Self:
        """Bring the services and the functions up; they go on in the background."""
        self.must("up", timeout_s=UP_TIMEOUT_S)
        return self

    def down(self) -> Done:
        """Take everything down."""
        self.contracts.close()
        return self.must("down")

    def tear_down(self) -> None:
        """Take everything down by every means, and remove the folders.

        Raises:
            AssertionError: when ``down`` failed; the means of last resort were used then.
        """
        self.contracts.close()
        done = self.ctl("down")
        if done.status != 0:
            self.clean_up_by_force()
        shutil.rmtree(self.home, ignore_errors=done.status != 0)
        assert done.status == 0, f"down -> {done.status}\n{done.out}{done.err}"

    def clean_up_by_force(self) -> None:
        """End what still lives and run each service's own clean-up."""
        for name in ("supervisor", *SERVICES):
            process = self.process(name)
            if process and process.is_alive():
                process.kill()
        for service in CLEANUP_ORDER:
            subprocess.run(
                [sys.executable, "-m", f"aetherless_{service}", "--cleanup"],
                env=self.environment,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )

    # Processes

    def process(self, service: str) -> Process | None:
        """Return a service's (or the ``supervisor``'s) process; None when there is no pid file."""
        return Process.from_file(self.settings.pid_path(service))

    def living_process(self, service: str) -> Process:
        """Return a service's process once it lives."""

        def look() -> Process | None:
            process = self.process(service)
            return process if process and process.is_alive() else None

        found = wait_until(look, f"{service} lives")
        assert found is not None
        return found

    def kill(self, *services: str) -> list[Process]:
        """End services with SIGKILL, and return the processes that they were."""
        victims = [self.living_process(service) for service in services]
        for victim in victims:
            victim.kill()
        return victims

    def wait_serving(self, *services: str, timeout_s: float = 30.0) -> None:
        """Return when each service answers that it serves."""
        for service in services or SERVICES:
            wait_until(
                lambda name=service: self.contracts.is_serving(name),  # type: ignore[misc]
                f"{service} serves",
                timeout_s,
            )

    def kill_and_wait(self, *services: str) -> None:
        """End services with SIGKILL and return when their successors serve."""
        victims = self.kill(*services)
        for service, victim in zip(services, victims, strict=True):
            wait_until(lambda s=service, v=victim: self.process(s) != v, f"{service} restarted")  # type: ignore[misc]
        self.wait_serving(*services)

    def tree(self, instance: str) -> list[Process]:
        """Return the processes in an instance's tree group, swrk among them."""
        return in_group(self.group / instance / "tree")

    def waiting_criu(self, instance: str) -> Process:
        """Return the ``criu swrk`` that waits in an armed sandbox."""

        def look() -> Process | None:
            tree = in_group(self.group / instance)
            return next((p for p in tree if "swrk" in p.command()), None)

        found = wait_until(look, f"criu waits in {instance}")
        assert found is not None
        return found

    # Functions

    def wait_state(self, function: str, state: str, timeout_s: float = 20.0) -> None:
        """Return when a function is in a state, named without its prefix."""
        wait_until(
            lambda: self.contracts.state(function) == state, f"{function} {state}", timeout_s
        )

    def evict(self, function: str) -> None:
        """Evict a function as a user does; return when nothing of it runs."""
        self.must("evict", function)
        self.wait_state(function, "WARM_SNAPSHOT")

    def logs(self, lines: int = 40) -> str:
        """Return the last lines of every service's and function's log."""
        texts = []
        for path in sorted(self.settings.state_dir.glob("*log*/*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            texts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(texts)
