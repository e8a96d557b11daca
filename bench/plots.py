# SPDX-License-Identifier: Apache-2.0
"""Draws the plots of docs/plots from kept results: ``plots.py RESULTS.json FOLDER``.

A script of its own, run with the Python of build/bench: the plotting library is installed there
alone. The files are the same for the same results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # the backend is chosen before
from matplotlib.ticker import LogFormatter

OURS, OTHERS = "#2563eb", "#9ca3af"
REPRODUCIBLE = {"svg.hashsalt": "aetherless", "svg.fonttype": "none", "font.size": 9}


def saved(figure: Any, path: Path) -> None:
    """Write a figure without a date in it."""
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def scale_times(axes: Any, label: str) -> None:
    """Give a plot its axis of times, with plain numbers."""
    axes.set_xscale("log")
    for which in ("major", "minor"):
        getattr(axes.xaxis, f"set_{which}_formatter")(LogFormatter(labelOnlyBase=False))
    axes.set_xlabel(label)
    axes.grid(visible=True, axis="x", which="both", linewidth=0.3)


def draw_hello(results: dict[str, Any], titles: dict[str, str], path: Path) -> None:
    """Draw all samples of each way to hello.py's first answer, and their medians."""
    found = results["wakes"]["hello"]
    samples = {"wake": found["samples"]["wake"]}
    samples |= {name: found["samples"][name] for name in found["peers"]}
    names = sorted(samples, key=lambda name: -sorted(samples[name])[len(samples[name]) // 2])
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(names) + 1))
    boxes = axes.boxplot(
        [samples[name] for name in names],
        orientation="horizontal",
        patch_artist=True,
        whis=(1, 99),
        widths=0.6,
        tick_labels=[titles[name].replace("`", "") for name in names],
        medianprops={"color": "black"},
    )
    for name, box in zip(names, boxes["boxes"], strict=True):
        box.set_facecolor(OURS if name == "wake" else OTHERS)
    scale_times(axes, "ms to the first byte (log); box: quartiles, whiskers: p1 to p99")
    saved(figure, path)


def draw_programs(results: dict[str, Any], titles: dict[str, str], path: Path) -> None:
    """Draw each program's wake and its own start, medians, with the wake's p99."""
    wakes = results["wakes"]
    names = list(reversed(wakes))
    wake = [wakes[name]["wake"]["p50"] for name in names]
    tail = [wakes[name]["wake"]["p99"] for name in names]
    fresh = [wakes[name]["peers"]["fresh"]["p50"] for name in names]
    places = range(len(names))
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1))
    axes.hlines(places, wake, fresh, color=OTHERS, linewidth=1)
    axes.hlines(places, wake, tail, color=OURS, linewidth=3, label="wake, median to p99")
    axes.scatter(wake, places, color=OURS, zorder=3, label="wake, median")
    axes.scatter(fresh, places, color=OTHERS, zorder=3, label="its own start, median")
    axes.set_yticks(list(places), [titles[name] for name in names])
    scale_times(axes, "ms to the first byte (log)")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False)
    saved(figure, path)


def main(results_path: str, folder: str) -> None:
    """Draw everything."""
    results = json.loads(Path(results_path).read_text())
    target = Path(folder)
    target.mkdir(exist_ok=True)
    with mpl.rc_context(REPRODUCIBLE):
        draw_hello(results, results["titles"], target / "hello.svg")
        draw_programs(results, results["titles"], target / "programs.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
