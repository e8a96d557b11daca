# SPDX-License-Identifier: Apache-2.0
"""The golden program in a sandbox on a real kernel: its rights, its end, what it writes."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import netns
from aetherless_snapshotter.sandbox import Sandbox
from aetherless_snapshotter.sandbox_errors import SandboxError, WrongStateError
from aetherless_snapshotter.sandbox_events import HandlerReady, RootExited, SandboxState
from aetherless_snapshotter.sandbox_spec import FUNCTION_UID
from framework.processes import wait_until
from framework.sandbox_world import PATH, Events, SandboxWorld, run

if TYPE_CHECKING:
    from aetherless.snapshotter.v1 import instance_pb2

pytestmark = pytest.mark.root


def test_a_program_has_no_rights(made: tuple[Sandbox, Events]) -> None:
    """It runs as uid 1000, without capabilities, with no_new_privs, and writes to the log."""
    sandbox, events = made
    log = sandbox.folder.parents[2] / "state" / "functions-log" / "hello.log"
    assert run(sandbox, events, "id -u; grep -E 'Cap|NoNew' /proc/self/status; hostname") == 0
    words = log.read_text().split()
    assert words[0] == "1000"
    assert set(words[words.index("CapInh:") + 1 : words.index("NoNewPrivs:") : 2]) == {"0" * 16}
    assert words[words.index("NoNewPrivs:") + 1] == "1"
    assert words[-1] == "aether"


def test_a_missing_log_is_made(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """The log is there before the program is, and is the function's own."""
    spec = place.builder.build("one", workload, "").spec
    spec.log_file.unlink()
    events = Events()
    sandbox = Sandbox.create(spec, events.take)
    assert run(sandbox, events, "echo words") == 0
    assert spec.log_file.read_text() == "words\n"
    assert spec.log_file.stat().st_uid == spec.uid_base + FUNCTION_UID
    sandbox.delete()


def test_exit_and_signal_are_told(made: tuple[Sandbox, Events]) -> None:
    """A program's end comes as an event; the sandbox is idle again."""
    sandbox, events = made
    pid = sandbox.spawn(["/bin/sh", "-c", "exit 7"], PATH, "/")
    assert pid > 9000
    assert events.wait(RootExited) == RootExited(pid, 7, 0, out_of_memory=False)
    sandbox.kill_tree()
    sandbox.spawn(["/bin/sh", "-c", "kill -TERM $$"], PATH, "/")
    second = events.wait(RootExited, 2)
    assert (second.code, second.signal) == (-1, signal.SIGTERM)


def test_out_of_memory_is_told(made: tuple[Sandbox, Events]) -> None:
    """A program that meets the limit is ended whole, and the event says why."""
    sandbox, events = made
    eater = "b = bytearray(500 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1"
    sandbox.spawn(["/usr/bin/python3", "-c", eater], PATH, "/")
    assert events.wait(RootExited).out_of_memory


def test_exec_failure_has_its_error_number(made: tuple[Sandbox, Events]) -> None:
    """What is no program is refused with the kernel's reason, and another can be started."""
    sandbox, events = made
    with pytest.raises(SandboxError) as caught:
        sandbox.spawn(["/no such/program"], PATH, "/")
    assert caught.value.errno == 2
    assert run(sandbox, events, "exit 3") == 3


def test_a_second_program_is_refused(made: tuple[Sandbox, Events]) -> None:
    """Only one program runs; killing the tree makes room."""
    sandbox, _ = made
    sandbox.spawn(["/bin/sleep", "100"], PATH, "/")
    with pytest.raises(WrongStateError, match="started"):
        sandbox.spawn(["/bin/sleep", "100"], PATH, "/")
    sandbox.kill_tree()
    assert sandbox.status().state is SandboxState.IDLE


def test_environment_and_arguments_arrive_whole(made: tuple[Sandbox, Events]) -> None:
    """Words with spaces, percent signs, newlines, or none at all, are what they were."""
    sandbox, events = made
    odd = "a b%20\n\u00fc"
    script = 'test "$1" = "$ODD" && test -z "$2" && test $# = 2'
    sandbox.spawn(["/bin/sh", "-c", script, "sh", odd, ""], {**PATH, "ODD": odd}, "/tmp")
    assert events.wait(RootExited).code == 0


def test_layers_hold_what_was_written(made: tuple[Sandbox, Events]) -> None:
    """The host reads a tree's upper layer while the sandbox lives."""
    sandbox, events = made
    assert run(sandbox, events, "echo new > /tmp/file; echo mine > $HOME/x; exit 0") == 0
    with sandbox.layer("tmp") as layer, sandbox.layer("fn"):
        assert Path(f"/proc/self/fd/{layer}/file").read_text() == "new\n"


def test_a_layer_is_not_read_through_a_link(made: tuple[Sandbox, Events]) -> None:
    """A program that may do so leads the host from the layer elsewhere: it is not followed."""
    sandbox, _ = made
    script = "mv /layers/tmp /layers/away && ln -s /etc /layers/tmp && echo done; sleep 100"
    sandbox.spawn(["/bin/sh", "-c", script], PATH, "/", container=True)
    log = sandbox.folder.parents[2] / "state" / "functions-log" / "hello.log"
    wait_until(lambda: log.read_text() == "done\n", "the link is made")
    with pytest.raises(NotADirectoryError), sandbox.layer("tmp"):
        raise AssertionError("the link was followed")


def test_a_program_may_have_some_rights(made: tuple[Sandbox, Events]) -> None:
    """With a container's capabilities it is uid 0 with just those; a child drops to another uid."""
    sandbox, events = made
    log = sandbox.folder.parents[2] / "state" / "functions-log" / "hello.log"
    script = (
        "import os, pathlib; status = pathlib.Path('/proc/self/status').read_text();"
        "words = status.split(); print(os.getuid(), *words[words.index('CapInh:'):][:10]);"
        "os.initgroups('www-data', 33); os.setgid(33); os.setuid(33);"
        "print(os.getuid(), os.getgroups(), 'CapEff:\\t' + '0' * 16 in"
        " pathlib.Path('/proc/self/status').read_text())"
    )
    sandbox.spawn(["/usr/bin/python3", "-c", script], PATH, "/", container=True)
    assert events.wait(RootExited).code == 0
    first, second = log.read_text().splitlines()
    some, none = f"{0x4FB:016x}", "0" * 16
    values = ("0", "CapInh:", none, "CapPrm:", some, "CapEff:", some, "CapBnd:", some)
    assert first.split()[: len(values)] == list(values)
    assert second == "33 [33] True"


def test_ready_on_the_handler_socket(made: tuple[Sandbox, Events]) -> None:
    """READY comes as an event; after closing there is no socket any more."""
    sandbox, events = made
    sandbox.open_handler_socket()
    client = (
        "import socket; s = socket.socket(socket.AF_UNIX);"
        " s.connect('/run/aether/handler.sock'); s.send(b'READY'); s.recv(1)"
    )
    sandbox.spawn(["/usr/bin/python3", "-c", client], PATH, "/")
    events.wait(HandlerReady)
    sandbox.close_handler_socket()
    assert events.wait(RootExited).code == 0
    assert run(sandbox, events, "test ! -e /run/aether/handler.sock") == 0


def test_the_network_inside(made: tuple[Sandbox, Events]) -> None:
    """The loopback is up, and ports below 1024 are free to use, without anything of the host's."""
    sandbox, _ = made
    with netns.make_socket(sandbox.netns_path, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 80))
        listener.listen()
        with netns.make_socket(sandbox.netns_path, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(("127.0.0.1", 80))
