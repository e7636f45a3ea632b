#!/usr/bin/env python3
"""Draws a results file that has vLLM beside our policies: tokens/s by shape, and sequences at once.

  tests/bench/plot_peers.py tests/bench/results/2026-12-01-h200.json tests/bench/plots/peers.svg

Needs matplotlib (python3-matplotlib).
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of a backend)

OURS, PEERS, TEXT = "#2f6db3", "#9a9a9a", "#808080"  # readable on white and on black


def bars(axes, title, values):
    names = list(values)
    colors = [PEERS if name.startswith("vLLM") else OURS for name in names]
    drawn = axes.barh(range(len(names)), list(values.values()), color=colors, height=0.7)
    axes.bar_label(drawn, [f"{v:,}" for v in values.values()], padding=3, fontsize=8, color=TEXT)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values.values()) * 1.18)
    axes.set_title(title, fontsize=9, loc="left", color=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(TEXT)
    axes.tick_params(labelsize=8, colors=TEXT)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    panels = [(f"Output tokens/s. {s['name']}", s["tokens_per_second"]) for s in results["shapes"]]
    held = results["sequences_at_once"]
    panels.append((held["name"], held["values"]))
    plt.rcParams["svg.hashsalt"] = "tessera"  # the same file from the same numbers
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 7.4), layout="constrained",
        gridspec_kw={"height_ratios": [len(values) + 1.5 for _, values in panels]})
    figure.patch.set_alpha(0)
    for panel, (title, values) in zip(axes, panels):
        panel.patch.set_alpha(0)
        bars(panel, title, values)
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    axes[-1].set_xlabel(
        f"{results['card']}, {results['date']}\n{results['model']}\n{versions}. Lowest panel: one "
        "H100. Blue: Tessera's policies. Grey: vLLM", fontsize=7.5, color=TEXT)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
