# SPDX-License-Identifier: Apache-2.0
"""``python -m bench``: measure, keep the numbers as JSON, and renew docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import (
    CRIU,
    INSTALLED,
    REPOSITORY,
    calls,
    commands,
    deploys,
    images,
    memory,
    plain,
    report,
    restores,
    rings,
    throughput,
    tracing,
    wakes,
)
from .peers import TITLES
from .programs import PROGRAMS
from .warm import touch_memory

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = REPOSITORY / "bench" / "results"
DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
SPECIFICATION = REPOSITORY / "SPECIFICATION.md"
PLOTS = REPOSITORY / "docs" / "plots"


def tool(*command: str) -> str:
    """Return what a tool prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def processor_model() -> str:
    """Return the processor's name as the kernel has it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def host() -> dict[str, Any]:
    """Return what the numbers depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "model": processor_model(),
        "memory_gib": round(memory / (1 << 30)),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "criu": tool(str(CRIU), "--version").split()[1],
        "python": tool(plain.PYTHON, "--version").split()[1],
        "commit": tool("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the promises.")
    names = [program.id for program in PROGRAMS]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
        help=f"of {', '.join(PARTS)}; without all of them the documents stay as they are",
    )
    parser.add_argument("--programs", nargs="+", choices=names, default=names, metavar="ID")
    parser.add_argument("--wakes", type=int, default=200, help="of hello.py; others have half")
    parser.add_argument("--deploys", type=int, default=3, help="of each program")
    parser.add_argument("--rounds", type=int, default=5, help="of requests per second")
    parser.add_argument("--seconds", type=float, default=2.0, help="per round and way")
    parser.add_argument("--runs", type=int, default=20, help="of each command")
    parser.add_argument("--memory", type=int, default=8192, help="MiB to touch beforehand")
    parser.add_argument("--no-document", action="store_true", help="leave docs/ as it is")
    return parser.parse_args(arguments)


def measure_programs(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure what is measured of each program; hello.py is always among them."""
    woken: dict[str, Any] = {}
    deployed: dict[str, Any] = {}
    for program in PROGRAMS:
        if program.id not in {"hello", *chosen.programs}:
            continue
        count = chosen.wakes if program.id == "hello" else chosen.wakes // 2
        print(f"{program.title}: {count} wakes, {chosen.deploys} deploys", flush=True)
        woken[program.id] = wakes.measure(program, count).summaries()
        deployed[program.id] = deploys.measure(program, chosen.deploys)
    return {"wakes": woken, "deploys": deployed}


# What is measured, in this order; each adds its keys to the results.
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "programs": measure_programs,
    "memory": lambda _: {"restores": restores.measure(10.0), "memory": memory.measure()},
    "commands": lambda chosen: {
        "commands": commands.measure(chosen.runs),
        "tracing": tracing.measure(),
    },
    "throughput": lambda chosen: {"throughput": throughput.measure(chosen.rounds, chosen.seconds)},
    "rings": lambda _: {"rings": rings.measure()},
    "calls": lambda _: {"calls": calls.measure()},
    "images": lambda _: {"images": images.measure()},
}


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Take the chosen measurements, saying which is at work and how long it took."""
    print("touching memory", flush=True)
    touch_memory(chosen.memory)
    results: dict[str, Any] = {}
    for part in chosen.only:
        print(part, flush=True)
        began = time.monotonic()
        results |= PARTS[part](chosen)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    return results | {"host": host(), "titles": TITLES | {"wake": "a wake"} | report.NAMES}


def publish(results: dict[str, Any], kept: Path) -> None:
    """Renew the tables and the plots of the documentation."""
    for path, content in (
        (DOCUMENT, report.tables(results)),
        (SPECIFICATION, report.specification(results)),
    ):
        path.write_text(report.replaced(path.read_text(), content))
    python = INSTALLED / "venv" / "bin" / "python"
    script = REPOSITORY / "bench" / "plots.py"
    subprocess.run([str(python), str(script), str(kept), str(PLOTS)], check=True, timeout=120)


def is_available() -> bool:
    """Say whether set-up has built CRIU and the peers, and this is root."""
    return CRIU.exists() and (INSTALLED / "venv").exists() and os.geteuid() == 0


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    chosen = parse(arguments)
    if not is_available():
        print("bench: needs root and what 'make bench' installs", file=sys.stderr)
        return 1
    results = measure(chosen)
    RESULTS.mkdir(exist_ok=True)
    stamp = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = RESULTS / f"{stamp}.json"
    kept.write_text(json.dumps(results, indent=2) + "\n")
    print(report.tables(results))
    if set(chosen.only) == set(PARTS) and not chosen.no_document:
        publish(results, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
