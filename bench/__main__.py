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
from pathlib import Path
from typing import Any

from . import REPOSITORY, commands, plain, report, throughput, wakes
from .warm import touch_memory

RESULTS = REPOSITORY / "bench" / "results"
DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"


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
        "criu": tool(str(plain.CRIU), "--version").split()[1],
        "python": tool(plain.PYTHON, "--version").split()[1],
        "commit": tool("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the promises.")
    parser.add_argument("--wakes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7, help="of requests per second")
    parser.add_argument("--seconds", type=float, default=2.0, help="per round and way")
    parser.add_argument("--runs", type=int, default=20, help="of each command")
    parser.add_argument("--memory", type=int, default=2048, help="MiB to touch beforehand")
    parser.add_argument("--no-document", action="store_true", help="leave docs/ as it is")
    return parser.parse_args(arguments)


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Take all measurements, saying which is at work."""
    print("touching memory", flush=True)
    touch_memory(chosen.memory)
    print(f"wakes ({chosen.wakes})", flush=True)
    woken = wakes.measure(chosen.wakes).summaries()
    print(f"commands ({chosen.runs} runs)", flush=True)
    waited = commands.measure(chosen.runs)
    print(f"requests per second ({chosen.rounds} rounds)", flush=True)
    rates = throughput.measure(chosen.rounds, chosen.seconds)
    return {"host": host(), "wakes": woken, "commands": waited, "throughput": rates}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    chosen = parse(arguments)
    if not plain.is_available():
        print("bench: needs root and what 'make setup' builds", file=sys.stderr)
        return 1
    results = measure(chosen)
    RESULTS.mkdir(exist_ok=True)
    stamp = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    (RESULTS / f"{stamp}.json").write_text(json.dumps(results, indent=2) + "\n")
    print(report.tables(results))
    if not chosen.no_document:
        DOCUMENT.write_text(report.replaced(DOCUMENT.read_text(), results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
