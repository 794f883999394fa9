"""The page on what was measured on a GPU."""

from typing import Any

from benchmarks.tables import markdown


def gpu_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    equality, spectra, ranks = (results[name] for name in ("equality", "spectra", "ranks"))
    steps = [
        [
            f"{line['family']}, {line['row']}",
            "" if line["time_s"] is None else f"{1e3 * line['time_s']:.2f}",
            "" if line["peak_bytes"] is None else f"{line['peak_bytes'] / 1e6:.0f}",
            line.get("failed", ""),
        ]
        for line in results["lines"]
    ]
    same = [
        [
            f"{line['family']}, {line['row']}, {line['dtype']}",
            f"{line['log_prob']:.1e}",
            f"{line['gradient']:.1e}",
            "yes" if line["within"] else "no",
        ]
        for line in equality
    ]
    return {
        "device": results["device"],
        "tolerances": ", ".join(
            f"{name} {value:g}" for name, value in results["tolerances"].items()
        ),
        "steps": markdown(("", "step [ms]", "peak [MB]", "failed"), steps),
        "equality": markdown(("", "log_prob", "gradient", "within"), same),
        "spectra": {name: f"{value:.2g}" for name, value in spectra.items()},
        "ranks": ranks,
    }
