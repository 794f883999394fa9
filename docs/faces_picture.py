"""Draws condition numbers of faces: python docs/faces_picture.py report.json PICTURE.svg."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

COLORS = {"plain": "#0072b2", "padded": "#b7470a"}
QUANTILES = {"median": "-", "p95": "--"}


def draw(report: dict, path: Path) -> None:
    """Draws a panel for each size: median and 95 % of both trainings over the epochs."""
    mpl.rcParams.update({"svg.hashsalt": "kappaflow", "font.size": 9, "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "figure.facecolor": "white"})
    sizes = report["sizes"]
    figure, axes = plt.subplots(1, len(sizes), figsize=(4.2 * len(sizes), 2.9), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        panel(axis, size)
    axes[0][0].set_ylabel("condition number")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def panel(axis: plt.Axes, size: dict) -> None:
    """Draws the two trainings of a size."""
    for kind, words in (("plain", "without padding"), ("padded", "with padding")):
        curve = size[kind]["curve"]
        epochs = [point["epoch"] for point in curve]
        for quantile, style in QUANTILES.items():
            values = [point[f"condition_number_{quantile}"] for point in curve]
            label = f"{words}, {'median' if quantile == 'median' else '95 %'}"
            axis.plot(epochs, values, style, color=COLORS[kind], lw=1.4, label=label)
    axis.set(yscale="log", xlabel="epoch", title=f"{size['size']} x {size['size']} pixels")
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
