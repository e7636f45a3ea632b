#!/usr/bin/env python3
"""Draws `tessera_bench serve --json=1`: tokens/s and sequences at once, by policy, as one SVG.

  tessera_bench serve --json=1 ... > serve.json
  tests/bench/plot.py serve.json serve.svg

Bars are of all steps; the thin line above is the rate of steps that only decode. Needs matplotlib
(python3-matplotlib).
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of a backend)


def read(path):
    """The report's rows by request shape: {request: [(policy, all steps, decode steps)]}."""
    shapes = {}
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    for row in rows:
        if row["temperature"] == 0:
            of_shape = shapes.setdefault(row["request"], {})
            of_shape.setdefault(row["policy"], {})[row["steps"]] = row
    return {
        request: [(name, steps["all"], steps["decode"]) for name, steps in policies.items()]
        for request, policies in shapes.items()
    }


def draw(axes, title, names, values, lines=None):
    places = range(len(names))
    bars = axes.barh(places, values, color="#4878a8", height=0.6)
    labels = [f"{value:,.0f}" for value in values]
    axes.bar_label(bars, labels, label_type="center", color="white", fontsize=8)
    if lines:
        for place, value in zip(places, lines):
            axes.plot([value, value], [place - 0.3, place + 0.3], color="#222222", linewidth=1)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values + (lines or [])) * 1.2)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    shapes = read(sys.argv[1])
    if not shapes:
        sys.exit(f"{sys.argv[1]}: no greedy row of tessera_bench serve --json=1")
    plt.rcParams["svg.hashsalt"] = "tessera"  # the same file from the same numbers
    figure, axes = plt.subplots(
        len(shapes), 2, figsize=(9, 1.2 + 2.2 * len(shapes)), squeeze=False, layout="constrained"
    )
    for row, (request, policies) in zip(axes, shapes.items()):
        images, text, output = request.split("x")
        names = [name for name, _, _ in policies]
        what = f"{images} picture{'' if images == '1' else 's'} + {text} tokens in, {output} out"
        draw(
            row[0],
            f"Output tokens/s ({what})",
            names,
            [every["tokens/s"] for _, every, _ in policies],
            [decode["tokens/s"] for _, _, decode in policies],
        )
        draw(row[1], "Sequences at once", names, [every["running"] for _, every, _ in policies])
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
