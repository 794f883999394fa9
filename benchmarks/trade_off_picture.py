"""Draws the trade-off: a panel for each ensemble, a line for each size, quartiles as bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.trade_off_page import title

BOUND = "#555555"
TICKS = (1, 2, 3, 5, 10, 20, 50, 100, 200)


def draw(curves: Sequence[Line], path: Path) -> None:
    """Draws the medians of the results, on white, which dark pages show as a card.

    Args:
        curves: The lines of the results.
        path: Of the SVG.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    there = [curve for curve in curves if "median" in curve]
    panels = grouped(there, ("ensemble",))
    sizes = sorted({curve["n"] for curve in there})
    colours = plt.get_cmap("viridis")([
        0.85 * i / max(1, len(sizes) - 1) for i in range(len(sizes))
    ])
    with mpl.rc_context():
        mpl.rcParams.update({"svg.hashsalt": "kappaflow", "font.size": 9})
        mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
        mpl.rcParams.update({"figure.facecolor": "white"})
        figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.4), sharey=True)
        cells = list(axes.flat)
        for cell, ((name,), of_name) in zip(cells, panels.items(), strict=False):
            panel(cell, name, of_name, dict(zip(sizes, colours, strict=True)))
        for cell in cells[len(panels) :]:
            cell.axis("off")
        handles, labels = _once(cells[: len(panels)])
        cells[-1].legend(handles, labels, loc="center", frameon=False)
        highest = max(curve["high"] for curve in there)
        ticks = [tick for tick in TICKS if tick < 1.5 * highest]
        axes[0][0].set_yticks(ticks, [str(tick) for tick in ticks])
        axes[0][0].minorticks_off()
        figure.supylabel("largest condition number of a factor", fontsize=9)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def panel(axis: Any, name: str, curves: Sequence[Line], colours: dict[int, Any]) -> None:  # noqa: ANN401
    """Draws one ensemble."""
    curves = sorted(curves, key=lambda curve: curve["couplings"])
    for (n,), of_size in grouped(curves, ("n",)).items():
        x = [curve["couplings"] for curve in of_size]
        low, middle, high = ([c[key] for c in of_size] for key in ("low", "median", "high"))
        axis.fill_between(x, low, high, color=colours[n], alpha=0.2, linewidth=0)
        axis.plot(x, middle, "o-", ms=3, lw=1.3, color=colours[n], label=f"{n} features")
    counts = sorted({curve["couplings"] for curve in curves})
    least = {
        curve["couplings"]: curve["of_the_map"] ** (1 / curve["couplings"]) for curve in curves
    }
    if name.startswith("geometric"):  # the same map at each size; of others the bound varies
        bound = [least[count] for count in counts]
        axis.plot(counts, bound, ":", color=BOUND, lw=1.3, label="none lies below")
    heading = title(name).replace(" of ", "\nof ")
    axis.set_title(heading, fontsize=9)
    axis.set(yscale="log", ylim=(1, None), xlabel="couplings", xticks=counts)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)


def _once(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Returns each line of the legend once, the sizes in order."""
    found = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    order = sorted(found, key=lambda label: int(label.split()[0]) if label[0].isdigit() else 10**6)
    return [found[label] for label in order], order
