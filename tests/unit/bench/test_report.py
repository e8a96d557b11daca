# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic and its tables, from results made by hand."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from bench import images  # noqa: E402
from bench.calls import PAUSES_S  # noqa: E402
from bench.peers import TITLES  # noqa: E402
from bench.report import BEGIN, END, replaced, specification, tables  # noqa: E402
from bench.ring_report import ONE_THREAD  # noqa: E402
from bench.samples import Spread, Summary, percentile  # noqa: E402
from bench.throughput import summary  # noqa: E402


def rings() -> dict[str, object]:
    """Return results of rings that keep every promise."""
    each = {"median": 30.0, "low": 29.0, "high": 31.0}
    sizes = dict.fromkeys(ONE_THREAD, each)
    trip = {"p50": 0.2, "p99": 0.5, "low": 0.1, "high": 0.3}
    trips = dict.fromkeys(("64", "4096"), trip)
    rate = {"low": 1e5, "high": 1e7}
    return {
        "one_thread": {"single call": sizes, "batch call": sizes},
        "two_processes": {"ring, spinning": trips, "ring, sleeping": trips},
        "pingpong": {"a word": {"p50": 100.0, "p99": 200.0}},
        "flow": {"64": rate | {"median": 6e6}, "65536": rate | {"median": 1e5}},
        "memcpy": each | {"median": 1e10},
        "c_loop": sizes,
    }


def results(wake_ms: float, ratio: float) -> dict[str, object]:
    """Return results as a run would give, with one wake time and one keep-alive ratio."""
    series = asdict(Summary.of([wake_ms] * 3))
    sizes = dict.fromkeys(("size_bytes", "resident_bytes", "shared_bytes", "eager_bytes"), 1 << 20)
    hello: dict[str, object] = {
        "wake": series,
        "restore": series,
        "request": asdict(Summary.of([0.2])),
    }
    hello |= {"peers": dict.fromkeys(TITLES, asdict(Summary.of([50.0])))}
    hello |= {"retransmissions": 0, "snapshot": sizes}
    round_of = {"per_second": 1000.0, "p99_ms": 1.0}
    ours = {"per_second": 1000.0 * ratio, "p99_ms": 1.0}
    found = {"plain-keep": [round_of], "trigger-keep": [ours]}
    found |= {"plain-new": [round_of], "trigger-new": [ours]}
    host = dict.fromkeys(("date", "processors", "model", "memory_gib", "kernel"), "x")
    host |= dict.fromkeys(("criu", "python", "commit"), "x")
    deploy = dict.fromkeys(("total", "own", "added", "rollback"), asdict(Summary.of([90.0])))
    hops = {"sleeping": asdict(Summary.of([8.0])), "spinning": asdict(Summary.of([0.8]))}
    return {
        "host": host,
        "wakes": {"hello": hello},
        "deploys": {"hello": deploy},
        "restores": {"functions": 4, "seconds": 10.0, "per_second": 20.0},
        "memory": {"armed_charged": 1 << 20, "init": 1, "criu": 1, "services": {"registry": 1}},
        "commands": {"help": series, "list": series},
        "tracing": {"off_us": 3.0},
        "throughput": {"hello": summary(found), "go": summary(found)},
        "rings": rings(),
        "calls": {
            "invoke": {
                "Invoke, handler sleeping": dict.fromkeys(
                    ("us", "ratio"), asdict(Spread.of([1.1, 1.2]))
                )
            },
            "attach_ms": dict.fromkeys(PAUSES_S, asdict(Summary.of([0.3]))),
            "hop_us": hops,
            "first_hop_us": hops,
        },
        "images": images.summary([{"pipeline": [30.0, 31.0, 32.0], "HTTP": [62.0]}]),
    }


def test_percentiles_are_nearest_rank() -> None:
    """The value at or below which the share lies is one of the samples."""
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([3.0], 0.5) == 3.0
    assert Summary.of([1.0, 2.0, 9.0]).p50 == 2.0
    assert Spread.of([0.8, 0.9, 1.0]) == Spread(0.9, 0.8, 1.0)


def test_no_samples_is_an_error() -> None:
    """A series that was not measured is not summarised as something."""
    with pytest.raises(ValueError, match="no samples"):
        Summary.of([])


@pytest.mark.parametrize(
    ("wake_ms", "ratio", "broken"), [(9.0, 0.9, 0), (17.0, 0.9, 1), (21.0, 0.9, 2), (9.0, 0.8, 2)]
)
def test_a_broken_promise_is_shown(wake_ms: float, ratio: float, broken: int) -> None:
    """A limit that is not kept says no."""
    assert tables(results(wake_ms, ratio)).count("**no**") == broken


def test_a_run_of_one_part_has_its_tables_only() -> None:
    """Promises and tables of what was measured, none of the rest."""
    whole = results(9.0, 0.9)
    text = tables({"rings": whole["rings"], "host": whole["host"]})
    assert "| ring, 64 B in and out in C |" in text
    assert "wake" not in text


def test_the_image_pipeline_stands_beside_http() -> None:
    """The ratio is of medians of one round; both ways have their spread."""
    whole = results(9.0, 0.9)
    text = tables({"images": whole["images"], "host": whole["host"]})
    assert "0.50 x the time of HTTP in the same round (0.50 to 0.50)" in text
    assert "| pipeline | 3 | 31.0 | 32.0 | 32.0 | 30.0 | 32.0 |" in text
    assert "| HTTP | 1 | 62.0 |" in text


def test_only_the_marked_part_is_replaced() -> None:
    """The prose around the tables stays; a document without markers is an error."""
    text = replaced(f"before\n{BEGIN}\nstale\n{END}\nafter\n", "fresh\n")
    assert text.startswith(f"before\n{BEGIN}\nfresh\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "stale" not in text
    with pytest.raises(ValueError, match="no <!--"):
        replaced("nothing", "fresh")


def test_the_specification_says_what_is_not_kept() -> None:
    """Each promise with its benchmark and the last value, and a mark on those that do not hold."""
    text = specification(results(21.0, 0.9))
    assert text.count("**not kept**") == 2
    assert "| wake, examples/hello.py, median | ≤ 10 ms | `bench/wakes.py` | 21.0 ms" in text
