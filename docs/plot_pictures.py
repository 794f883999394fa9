"""Draws the pictures of docs/plots.md: python docs/plot_pictures.py. It runs the page."""

import os
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from run_page import code_of

DOCS = Path(__file__).parent.resolve()
NAMES = (
    "pairs.png",
    "marginals.svg",
    "calibration.png",
    "depth.svg",
    "singular-values.svg",
    "training.svg",
    "latent.svg",
    "factorization.svg",
)


if __name__ == "__main__":
    plt.switch_backend("agg")
    mpl.rcParams["svg.hashsalt"] = "kappaflow"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # for the files that the page writes
        exec(code_of((DOCS / "plots.md").read_text("utf-8")), {})
        os.chdir(DOCS)
    for number, name in zip(plt.get_fignums(), NAMES, strict=True):
        path = DOCS / "images" / f"plots-{name}"
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        plt.figure(number).savefig(path, dpi=110, metadata=metadata)
