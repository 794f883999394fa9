"""Draws the picture of the README: python docs/picture.py REPORT.json PICTURE.svg."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

DATA, SAMPLES, WORST = "#0072b2", "#b7470a", "#9b2226"
COLUMNS = ("fLength", "fM3Trans", "fAlpha")


def draw(report: dict, path: Path, shown: tuple[str, str, str] = COLUMNS) -> None:
    """Draws conditioning over depth, and three columns of data against samples."""
    mpl.rcParams.update({"svg.hashsalt": "kappaflow", "font.size": 9, "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "figure.facecolor": "white"})
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), width_ratios=(2.2, 1, 1, 1))
    conditioning(axes[0], report["profile"])
    columns = {marginal["column"]: marginal for marginal in report["marginals"]}
    for axis, name in zip(axes[1:], shown, strict=True):
        marginal_of(axis, columns[name])
    axes[1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def conditioning(axis: plt.Axes, profile: dict) -> None:
    """Draws the condition number of all layers so far, and of each alone; the worst is marked."""
    depth = range(1, len(profile["layers"]) + 1)
    so_far, alone = profile["condition_number"], profile["layer_condition_number"]
    axis.fill_between(depth, so_far["p05"], so_far["p95"], color=DATA, alpha=0.2, linewidth=0)
    axis.plot(depth, so_far["median"], color=DATA, label="all layers so far (median, 90 %)")
    axis.plot(depth, alone["median"], "o", color="#555555", ms=4, label="each layer alone")
    worst = profile["worst_layer"]
    label = f"worst: {profile['layers'][worst]}"
    axis.plot(worst + 1, alone["median"][worst], "D", color=WORST, ms=7, label=label)
    axis.set(yscale="log", xlabel="depth (layers from the data)", ylabel="condition number")
    axis.legend(frameon=False, fontsize=8)


def marginal_of(axis: plt.Axes, marginal: dict) -> None:
    """Draws a column's held-out data (filled) and samples (outline)."""
    axis.stairs(
        marginal["data"], marginal["edges"], fill=True, color=DATA, alpha=0.3, label="data"
    )
    axis.stairs(marginal["samples"], marginal["edges"], color=SAMPLES, label="samples")
    axis.set(xlabel=marginal["column"], yticks=[])


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
