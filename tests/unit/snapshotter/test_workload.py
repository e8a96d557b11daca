# SPDX-License-Identifier: Apache-2.0
"""How a handler is started, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition, InvalidArgument, NotFound
from aetherless_snapshotter import workload as workloads

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeWorkload = Callable[..., instance_pb2.Workload]


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file with a mode, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_plain_python_runs_with_debians(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """A .py handler needs neither a shebang nor an execute bit."""
    handler = write(tmp_path / "handler.py", "print()")
    program = workloads.resolve(make_workload())
    assert program.command == ("/usr/bin/python3", str(handler))
    assert program.trees == ()


def test_a_shebang_without_execute_bit_is_not_followed(
    make_workload: MakeWorkload, tmp_path: Path
) -> None:
    """The kernel would not follow it either."""
    handler = write(tmp_path / "handler.py", "#!/nowhere/python\n")
    assert workloads.resolve(make_workload()).command == ("/usr/bin/python3", str(handler))


def test_an_executable_shebang_is_followed(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """Interpreter and its one argument, as the kernel splits them; its prefix is bound."""
    python = write(tmp_path / "inst" / "bin" / "python", "", 0o755)
    handler = write(tmp_path / "app" / "h.py", f"#!{python} -X dev -u\n", 0o755)
    program = workloads.resolve(make_workload(handler_path=str(handler)))
    assert program.command == (str(python), "-X dev -u", str(handler))
    assert program.trees == (tmp_path / "inst",)


def test_env_in_a_shebang_needs_no_tree(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """/usr is in every sandbox."""
    handler = write(tmp_path / "app.js", "#!/usr/bin/env node\n", 0o755)
    program = workloads.resolve(make_workload(handler_path=str(handler)))
    assert program.command == ("/usr/bin/env", "node", str(handler))
    assert program.trees == ()


def test_a_virtual_environment_brings_its_home(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """The links of bin/python3 are followed, and so is pyvenv.cfg's home."""
    base = tmp_path / "pyenv" / "3.11"
    write(base / "bin" / "python3.11", "", 0o755)
    (base / "bin" / "python3").symlink_to("python3.11")
    handler = write(tmp_path / "venv" / "handler.py", "")
    (tmp_path / "venv" / "bin").mkdir()
    (tmp_path / "venv" / "bin" / "python3").symlink_to(base / "bin" / "python3")
    write(tmp_path / "venv" / "pyvenv.cfg", f"home = {base}/bin\nversion = 3.11\n")
    program = workloads.resolve(make_workload(handler_path=str(handler)))
    assert program.command[0] == str(tmp_path / "venv" / "bin" / "python3")
    assert program.trees == (base, tmp_path / "venv")


def test_this_interpreter_is_bound_with_its_prefix(
    make_workload: MakeWorkload, tmp_path: Path
) -> None:
    """The environment that runs the tests is a real one: every link of its chain is covered."""
    handler = write(tmp_path / "h.py", f"#!{sys.executable}\n", 0o755)
    program = workloads.resolve(make_workload(handler_path=str(handler)))
    real = Path(sys.executable).resolve()
    system = any(top in real.parents for top in workloads.SYSTEM_TREES)
    assert system or any(tree in real.parents for tree in program.trees)
    assert Path(sys.prefix) in program.trees or system


def test_what_the_root_holds_is_not_bound_again(
    make_workload: MakeWorkload, tmp_path: Path
) -> None:
    """An environment inside the function's folder is in its copy."""
    python = write(tmp_path / "app" / "venv" / "bin" / "python", "", 0o755)
    handler = write(tmp_path / "app" / "h", f"#!{python}\n", 0o755)
    program = workloads.resolve(
        make_workload(handler_path=str(handler), root_path=str(tmp_path / "app"))
    )
    assert program.trees == ()
    assert program.folder == str(tmp_path / "app")


def test_a_program_in_a_home_comes_alone(make_workload: MakeWorkload) -> None:
    """Its prefix would be somebody's whole home."""
    assert workloads.is_shared_folder(Path.home())
    assert workloads.is_shared_folder(Path("/home/somebody"))
    assert workloads.is_shared_folder(Path("/tmp"))
    assert not workloads.is_shared_folder(Path("/home/somebody/project"))


def test_missing_handler(make_workload: MakeWorkload) -> None:
    """The path is in the error."""
    with pytest.raises(NotFound) as caught:
        workloads.resolve(make_workload(handler_path="/nowhere/handler"))
    assert caught.value.reason == "HANDLER_NOT_FOUND"
    assert caught.value.metadata["path"] == "/nowhere/handler"


@pytest.mark.parametrize(
    ("name", "text", "mode", "problem"),
    [
        ("prog", "", 0o644, "execute permission"),
        ("prog", "#!/nowhere/interpreter\n", 0o755, "/nowhere/interpreter does not exist"),
    ],
)
def test_not_executable(
    make_workload: MakeWorkload, tmp_path: Path, name: str, text: str, mode: int, problem: str
) -> None:
    """A program without permission, or without its interpreter, can't run."""
    handler = write(tmp_path / name, text, mode)
    with pytest.raises(FailedPrecondition) as caught:
        workloads.resolve(make_workload(handler_path=str(handler)))
    assert caught.value.reason == "HANDLER_NOT_EXECUTABLE"
    assert problem in caught.value.metadata["problem"]


def test_environment(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """The published variables, our defaults, and the user's word above the defaults."""
    write(tmp_path / "handler.py", "")
    made = workloads.resolve(make_workload(environment={"GODEBUG": "http2=0", "A": "b"}))
    environment = made.environment
    assert environment["PORT"] == environment["AETHER_TRIGGER_PORT"] == "8080"
    assert environment["AETHER_FUNCTION_ID"] == "hello"
    assert environment["AETHER_SOCKET"].startswith("/run/")
    assert environment["GODEBUG"] == "http2=0"
    assert environment["UV_USE_IO_URING"] == "0"
    assert environment["A"] == "b"
    assert workloads.resolve(make_workload()).environment["GODEBUG"] == "multipathtcp=0"


def test_without_a_port(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """It needs a channel, is asked nothing, and is told of no port."""
    write(tmp_path / "handler.py", "")
    workload = make_workload(ipc=True)
    workload.ClearField("trigger_port")
    with pytest.raises(InvalidArgument) as caught:
        workloads.validate(workload)
    assert caught.value.metadata["field"] == "workload.warmup"
    workload.warmup.kind = instance_pb2.WARMUP_KIND_NONE
    workloads.validate(workload)
    environment = workloads.resolve(workload).environment
    assert "AETHER_CHANNEL" in environment
    assert not {"PORT", "AETHER_TRIGGER_PORT"} & environment.keys()
    workload.ipc = False
    with pytest.raises(InvalidArgument) as caught:
        workloads.validate(workload)
    assert caught.value.metadata["field"] == "workload.trigger_port"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"function_id": "a b"}, "workload.function_id"),
        ({"handler_path": "relative"}, "workload.handler_path"),
        ({"root_path": "relative"}, "workload.root_path"),
        ({"memory_limit_bytes": 1 << 40}, "workload.memory_limit_bytes"),
        ({"trigger_port": 70000}, "workload.trigger_port"),
        ({"environment": {"PORT": "1"}}, "workload.environment"),
        ({"environment": {"A=B": "1"}}, "workload.environment"),
        ({"mounts": ["data"]}, "workload.mounts"),
    ],
)
def test_validation(make_workload: MakeWorkload, fields: dict[str, object], field: str) -> None:
    """Each wrong field is named."""
    with pytest.raises(InvalidArgument) as caught:
        workloads.validate(make_workload(**fields))
    assert caught.value.metadata["field"] == field


def test_a_valid_workload_passes(make_workload: MakeWorkload) -> None:
    """The maker's own workload is valid."""
    assert list(workloads._problems(make_workload())) == []


def test_a_program_survives_being_written_down(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """The snapshot's manifest keeps it as JSON."""
    write(tmp_path / "handler.py", "")
    data = tmp_path / "data"
    data.mkdir()
    program = workloads.resolve(make_workload(mounts=[str(data)]))
    assert workloads.Program.decode(program.encode()) == program
    assert program.trees == (data,)


@pytest.mark.parametrize("mount", ["/", "/proc", "/proc/1", "/etc", "/dev", "/home", "/run/../tmp"])
def test_mounts_hide_nothing_of_the_sandbox(
    make_workload: MakeWorkload, tmp_path: Path, mount: str
) -> None:
    """What the sandbox has there itself would be gone, CRIU's own files for one."""
    write(tmp_path / "handler.py", "print()")
    with pytest.raises(InvalidArgument, match="would hide"):
        workloads.resolve(make_workload(mounts=[mount]))


def test_a_mount_must_be_there(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """The kernel's refusal would name a step of the sandbox."""
    write(tmp_path / "handler.py", "print()")
    with pytest.raises(InvalidArgument, match="does not exist"):
        workloads.resolve(make_workload(mounts=[str(tmp_path / "nothing")]))


@pytest.mark.parametrize(
    "environment", [{"A": "x" * (128 << 10)}, {f"A{n}": "" for n in range(1025)}]
)
def test_an_environment_has_limits(
    make_workload: MakeWorkload, environment: dict[str, str]
) -> None:
    """More than that no program can be given."""
    with pytest.raises(InvalidArgument, match="at most"):
        workloads.validate(make_workload(environment=environment))


def test_a_channel_is_in_the_environment(make_workload: MakeWorkload, tmp_path: Path) -> None:
    """Of those that have one; nobody else can set the variable."""
    write(tmp_path / "handler.py", "")
    assert "AETHER_CHANNEL" not in workloads.resolve(make_workload()).environment
    program = workloads.resolve(make_workload(ipc=True))
    assert program.environment["AETHER_CHANNEL"] == "/channel/channel.sock"
    with pytest.raises(InvalidArgument):
        workloads.validate(make_workload(environment={"AETHER_CHANNEL": "/x"}))
