"""Draws the pictures of pages: python docs/tutorial_pictures.py FOLDER.

FOLDER is what `python docs/run_page.py docs/tutorial-table.md FOLDER` left, or the same of
images.md; whichever page was run there gets its pictures.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from picture import DATA, SAMPLES, draw

import kappaflow as kf

IMAGES = Path(__file__).parent / "images"
CONTEXTS = {"fDist": (100.0, 300.0), "fSize": (2.5, 3.5)}
NEAR = {"fDist": 30.0, "fSize": 0.3}  # rows within so much of a context are drawn beside it


def draw_given(folder: Path, path: Path) -> None:
    """Draws the density of fAlpha under two contexts, and the rows near each."""
    flow = kf.load(folder / "runs" / "given")
    table = kf.load_table(
        folder / "events.csv", columns=["fAlpha"], context=list(CONTEXTS), where="class=g"
    )
    alpha = torch.linspace(0, 90, 451)[:, None, None]
    contexts = torch.tensor(list(zip(*CONTEXTS.values(), strict=True)))
    with torch.no_grad():
        curves = flow.log_prob(alpha.expand(-1, len(contexts), -1), contexts).exp()
    mpl.rcParams.update({"svg.hashsalt": "kappaflow", "font.size": 9})
    figure, axes = plt.subplots(1, len(contexts), figsize=(8, 2.6), sharey=True)
    for axis, context, curve in zip(axes, contexts.numpy(), curves.T, strict=True):
        near = (np.abs(table.context - context) < list(NEAR.values())).all(axis=1)
        rows, label = table.values[near, 0], f"{near.sum()} rows near"
        axis.hist(rows, bins=30, range=(0, 90), density=True, color=DATA, alpha=0.3, label=label)
        axis.plot(alpha.flatten(), curve, color=SAMPLES, label="the density")
        at = ", ".join(f"{name} {value:g}" for name, value in zip(CONTEXTS, context, strict=True))
        axis.set(title=at, xlabel="fAlpha", yticks=[])
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if (place / "by-class.png").exists():
        shutil.copy(place / "by-class.png", IMAGES / "tutorial-by-class.png")
    if (place / "runs" / "events").exists():
        report = json.loads((place / "runs" / "events" / "report.json").read_text())
        draw(report, IMAGES / "tutorial-table.svg", ("fLength", "fSize", "fAlpha"))
        draw_given(place, IMAGES / "tutorial-given.svg")
