"""One picture of a run: how many times our time every peer takes."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.table import Result

COLORS = {
    "torch eager": "#d1495b",
    "torch channels_last": "#edae49",
    "torch.compile": "#f4743b",
    "onnxruntime": "#00798c",
    "OpenVINO latency": "#3a5fcd",
    "OpenVINO throughput": "#89a7e8",
    "ncnn": "#a0522d",
    "diffusers scheduler": "#7b2d8b",
    "numpy PCG64": "#8d99ae",
    "numpy Philox": "#5c677d",
    "torch.randn": "#2e933c",
}
"""Every peer that is drawn; "network calls alone" and "bare Python" are no peers but bounds."""

GROUP_GAP = 1.6


def plot(benchmarks: list[dict[str, Any]], subtitle: str, path: Path) -> None:
    """Write a dot plot with a logarithmic axis: a dot right of 1 is a peer slower than we are."""
    results = [Result.from_json(benchmark) for benchmark in benchmarks]
    results = [result for result in results if COLORS.keys() & result.peers.keys() and result.unit != "MB"]
    heights, titles, height = [], [], 0.0
    for index, result in enumerate(results):
        if index == 0 or result.group != results[index - 1].group:
            height += GROUP_GAP
            titles.append((height - 0.85, result.group))
        heights.append(height)
        height += 1

    figure = Figure(figsize=(10, 0.32 * height + 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(1, color="black", linewidth=1.5, zorder=1)
    for y, result in zip(heights, results, strict=True):
        axes.axhline(y, color="#e8e8e8", linewidth=0.8, zorder=0)
        for name, times in result.peers.items():
            if name in COLORS:
                ratio = median(times.ratios(result.ours))
                axes.plot(ratio, y, "o", color=COLORS[name], markersize=8, alpha=0.9)
    for y, title in titles:
        axes.text(
            0,
            y,
            title,
            transform=axes.get_yaxis_transform(),
            fontsize=11,
            fontweight="bold",
            va="center",
            backgroundcolor="white",
        )

    shown = [name for name in COLORS if any(name in result.peers for result in results)]
    handles = [axes.plot([], [], "o", color=COLORS[name], markersize=8, label=name)[0] for name in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    axes.set_yticks(heights, [f"{r.work}  ({r.show(r.ours.median)} {r.unit})" for r in results])
    axes.tick_params(axis="both", labelsize=10, length=0)
    axes.set_ylim(height - 0.2, 0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time of the peer / time of pysdk, median of paired rounds (log scale; 1x: as fast as pysdk)")
    axes.set_title(f"pysdk (its own time in brackets) beside its peers\n{subtitle}", fontsize=12, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=150)
