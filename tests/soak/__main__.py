# SPDX-License-Identifier: Apache-2.0
"""``make soak``: an hour by default; says every minute how it goes, and fails on the first loss."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from framework.ledger import Clients, Written, assert_once_each
from framework.mesh import Function, Orchestrator
from framework.programs import handler
from framework.upheaval import Upheaval

ID = "counted"
REPORT_EVERY_S = 60.0


def soak(seconds: float, rate: float, seed: int, pause: float) -> str:
    """Soak; return a summary. AssertionError when a request was lost or doubled.

    Arguments:
        seconds: How long.
        rate: Requests a second.
        seed: What makes the choices.
        pause: The longest time between two disturbances, in seconds.
    """
    function = Function(ID, handler("counted"), keys={"restore_timeout_ms": 20000})
    with Orchestrator([function]) as mesh:
        mesh.up()
        upheaval = Upheaval(mesh, ID, seed)
        output = next(mesh.settings.state_dir.glob(f"*log*/{ID}.log"))
        began = reported = time.monotonic()
        with Written(output) as written, Clients(function.port, rate, breaks=True) as clients:
            while time.monotonic() - began < seconds and not clients.ledger.failures:
                upheaval.disturb()
                time.sleep(upheaval.chance.uniform(0, pause))
                if time.monotonic() - reported > REPORT_EVERY_S:
                    reported = time.monotonic()
                    print(f"{reported - began:.0f} s: {upheaval.done}", flush=True)
        summary = assert_once_each(clients.ledger, written, least=1)
    return f"seed {seed}, {seconds:.0f} s: {summary}; {upheaval.done}"


def main() -> int:
    """Soak as the command line says."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--pause", type=float, default=2.0, help="longest, between disturbances")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    print(soak(chosen.seconds, chosen.rate, chosen.seed, chosen.pause))
    return 0


if __name__ == "__main__":
    sys.exit(main())
