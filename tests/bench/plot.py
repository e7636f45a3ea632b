#!/usr/bin/env python3
"""Draws measured figures as one SVG of bars.

  tests/bench/plot.py tests/bench/results/2026-12-01-h200.json tests/bench/plots/peers.svg
  tessera_bench serve --json=1 ... > serve.json
  tests/bench/plot.py serve.json serve.svg

The input is a file of results/, or the JSON lines of `tessera_bench serve`. For the lines, bars
show all steps, and a dark mark shows the rate of the steps that only decode. Needs matplotlib
(Debian's python3-matplotlib).
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of a backend)

TEXT = "#1f2328"
# The picture has a white ground of its own, so that it reads on dark pages too. The colours differ
# in lightness as well as in hue.
COLORS = {
    "vLLM": "#9aa0a6",
    "Tessera at 16 bit": "#86b6e8",
    "Tessera, compressed": "#1f5fa8",
    "Tessera, slower than 16 bit": "#d9772b",
}


def bars(axes, panel, colors, rows_of_line=0):
    """Draws one panel: {title, unit, bars: [{name, value or null, why, mark}]}."""
    rows = panel["bars"]
    axes.barh(range(len(rows)), [row["value"] or 0 for row in rows], color=colors, height=0.72)
    for place, row in enumerate(rows):
        known = row["value"] is not None
        end = max(row["value"] or 0, row.get("mark", 0))
        axes.annotate(f"{row['value']:,.0f}" if known else row["why"], (end, place), (4, 0),
                      textcoords="offset points", va="center")
        if "mark" in row:
            axes.plot([row["mark"]] * 2, [place - 0.36, place + 0.36], color=TEXT, linewidth=1)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(max(rows_of_line, len(rows)) - 0.4, -0.6)  # bars of one line are equally thick
    axes.set_xlim(0, 1.22 * max(max(row["value"] or 0, row.get("mark", 0)) for row in rows))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(panel["unit"])
    axes.set_title(panel["title"], loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def kind(bar, panel):
    """The key in COLORS of a bar of a results file."""
    if bar["name"].startswith("vLLM"):
        return "vLLM"
    if bar["name"].startswith("none"):
        return "Tessera at 16 bit"
    none = next(other["value"] for other in panel["bars"] if other["name"].startswith("none"))
    slower = panel["unit"] == "output tokens/s" and (bar["value"] or 0) < none
    return "Tessera, slower than 16 bit" if slower else "Tessera, compressed"


def draw_results(results):
    """Two panels a row, under a heading with a legend and above the conditions."""
    lines = [results["panels"][i:i + 2] for i in range(0, len(results["panels"]), 2)]
    counts = [max(len(panel["bars"]) for panel in line) for line in lines]
    height = 0.23 * sum(counts) + 0.8 * len(lines) + 1.1  # inches
    figure, grid = plt.subplots(len(lines), 2, figsize=(9.6, height), squeeze=False,
                                height_ratios=[count + 3 for count in counts])
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.62 / height), wspace=0.04, hspace=0.04)
    for row, line, count in zip(grid, lines, counts):
        for axes, panel in zip(row, line):
            bars(axes, panel, [COLORS[kind(bar, panel)] for bar in panel["bars"]], count)
    figure.text(0.01, 1 - 0.1 / height, results["heading"], va="top", fontweight="bold",
                fontsize=11)
    figure.legend([plt.Rectangle((0, 0), 1, 1, color=color) for color in COLORS.values()], COLORS,
                  loc="upper left", bbox_to_anchor=(0, 1 - 0.26 / height), ncols=len(COLORS),
                  frameon=False)
    figure.supxlabel("\n".join(results["conditions"]), x=0.01, ha="left", fontsize=7.5)


def draw_serve(lines):
    """A row of panels for each shape of request: tokens/s, and sequences at once."""
    shapes = {}
    for line in lines:
        if line["temperature"] == 0:
            policies = shapes.setdefault(line["request"], {})
            policies.setdefault(line["policy"], {})[line["steps"]] = line
    _, grid = plt.subplots(len(shapes), 2, figsize=(9.6, 1.2 + 2.2 * len(shapes)), squeeze=False)
    color = COLORS["Tessera, compressed"]
    for axes, (request, policies) in zip(grid, shapes.items()):
        images, text, output = request.split("x")
        title = f"{images} image{'' if images == '1' else 's'} + {text} tokens in, {output} out"
        rates = [{"name": name, "value": steps["all"]["tokens/s"],
                  "mark": steps["decode"]["tokens/s"]} for name, steps in policies.items()]
        held = [{"name": name, "value": steps["all"]["running"]}
                for name, steps in policies.items()]
        bars(axes[0], {"title": title, "unit": "output tokens/s", "bars": rates}, color)
        bars(axes[1], {"title": "Batch", "unit": "sequences at once", "bars": held}, color)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        source = file.read()
    plt.rcParams.update({
        "svg.hashsalt": "tessera",  # the same file from the same numbers
        "svg.fonttype": "none",  # text stays text: small files that can be searched and compared
        "font.size": 8, "axes.titlesize": 9, "text.color": TEXT, "axes.labelcolor": TEXT,
        "xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": "#8c959f",
        "figure.facecolor": "white", "figure.constrained_layout.use": True,
    })
    if '"panels"' in source:
        draw_results(json.loads(source))
    else:
        lines = [json.loads(line) for line in source.splitlines() if line.strip()]
        if not any(line.get("temperature") == 0 for line in lines):
            sys.exit(f"{sys.argv[1]}: no greedy row of tessera_bench serve --json=1")
        draw_serve(lines)
    plt.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
