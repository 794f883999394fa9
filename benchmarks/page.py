"""The pages of the documentation from the files of results."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.ablation import ablation_values
from benchmarks.depth_page import depth_chart, depth_values
from benchmarks.doctor import doctor_table
from benchmarks.energies import energies_values
from benchmarks.factor_tables import goals_table
from benchmarks.growth import growth_chart
from benchmarks.images_page import image_spectra_values, image_values
from benchmarks.known_report import known_values
from benchmarks.mixed_report import mixed_values
from benchmarks.posteriors import posteriors_chart, posteriors_values
from benchmarks.processes import ROOT, console
from benchmarks.reaching import reaching_values
from benchmarks.score_stream import score_values
from benchmarks.sigma_min import error_table
from benchmarks.splines import splines_values
from benchmarks.suite import KEPT
from benchmarks.tables import (
    failures,
    gradient_table,
    memory_table,
    numerics_table,
    parameters_sentence,
    ratio_table,
    reference_place,
    reference_table,
    spectra_table,
    text_table,
)
from benchmarks.tables_suite.report import tables_values
from benchmarks.verdict import verdict_values
from kappaflow.report.charts.matplotlib import write_stills

Results = dict[str, Any]
ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  Markdown from our own numbers
)


@dataclass(frozen=True)
class Section:
    """A section of a page: a template, its files of results, and the values it shows."""

    template: str
    parts: tuple[str, ...]
    values: Callable[[Results], dict[str, Any]]

    def text(self, folder: Path) -> str:
        """Returns the section as Markdown; empty without any of its results."""
        results = read_results(folder, self.parts)
        if not results:
            return ""
        template = ENVIRONMENT.get_template(f"{self.template}.md.jinja")
        text = template.render(measured=measured_on(results), **self.values(results))
        return re.sub("^#", "##", text, flags=re.MULTILINE)


def write_page(*, folder: Path = KEPT, docs: Path = ROOT / "docs") -> None:
    """Write the pages of the documentation from the files of results.

    Parameters
    ----------
    folder
        Folder of the results. A section without results is left out, and so is a page.
    docs
        Folder of the pages.
    """
    texts = {name: text for name in PAGES if (text := page_text(name, folder))}
    if not texts:
        raise SystemExit(f"No results in {folder}: run python -m benchmarks all first.")
    for name, text in texts.items():
        (docs / name).write_text(text, encoding="utf-8")
        console.print(f"Wrote {docs / name}", markup=False, soft_wrap=True)
    for part, results in read_results(folder, tuple(CHARTS)).items():
        (docs / "images").mkdir(exist_ok=True)
        write_stills(CHARTS[part](results), docs / "images", ("svg",))


def page_text(name: str, folder: Path = KEPT) -> str:
    """Returns a page as Markdown; an empty text without results for any of its sections."""
    heading, sections = PAGES[name]
    texts = [text for section in sections if (text := section.text(folder))]
    return "\n".join([heading, *texts]) if texts else ""


def read_results(folder: Path, parts: tuple[str, ...]) -> Results:
    """Returns the existing results by part, without empty ones."""
    results: Results = {}
    for part in parts:
        path = folder / f"{part}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["lines"]:
                results[part] = result
    return results


def couplings_values(results: Results) -> dict[str, Any]:
    """Returns the values of the section on affine couplings; any part may be missing."""
    descriptions: dict[str, str] = {}
    for part in results.values():
        descriptions |= part.get("descriptions", {})
    speed = results.get("speed")
    return {
        "place": reference_place(speed) if speed else None,
        "reference": reference_table(speed) if speed else None,
        "parameters": parameters_sentence(speed) if speed else "",
        "failures": failures(speed) if speed else {},
        "ratios": ratio_tables(speed) if speed else {},
        "growth": growth_chart(results["growth"]) if "growth" in results else None,
        "reaching": reaching_values(results["reaching"]) if "reaching" in results else None,
        "memory": memory_table(results["memory"]) if "memory" in results else None,
        "numerics": numerics_table(results["numerics"]) if "numerics" in results else None,
        "gradients": gradient_table(results["gradients"]) if "gradients" in results else None,
        "gradients_depth": results["gradients"]["lines"][0]["depth"]
        if "gradients" in results
        else 0,
        "spectra": spectra_table(results["spectra"]) if "spectra" in results else None,
        "descriptions": text_table(["row", "what it is"], descriptions.items()),
    }


def images_values(results: Results) -> dict[str, Any]:
    """Returns the values of the section on flows of images; any part may be missing."""
    of = {"images": image_values, "image-spectra": image_spectra_values}
    return {
        part.replace("-", "_"): values(results[part]) if part in results else None
        for part, values in of.items()
    }


def doctor_values(results: Results) -> dict[str, Any]:
    """Returns the values of the section on the time of the doctor."""
    result = results["doctor"]
    return {
        "table": doctor_table(result["lines"]),
        "noise": result["noise"],
        "repetitions": result["repetitions"],
    }


def sigma_min_values(results: Results) -> dict[str, Any]:
    """Returns the values of the section on both ends of spectra."""
    result = results["sigma-min"]
    return {
        "sigma_min": error_table(result["lines"], "sigma_min"),
        "sigma_max": error_table(result["lines"], "sigma_max"),
        "seeds": result["seeds"],
        "features": result["features"],
    }


def factor_values(results: Results) -> dict[str, Any]:
    """Returns the values of the section on factorizations."""
    return {"goals": goals_table(results["factor"]["lines"])}


def ratio_tables(speed: dict[str, Any]) -> dict[str, str]:
    """Returns the table of each quantity over the grid; empty if the grid is a single place."""
    titles = {
        "train_step": "Training step",
        "log_prob": "log_prob without gradient",
    }
    places = {(line["depth"], line["batch"]) for line in speed["lines"]}
    if len(places) < 2:
        return {}
    return {title: ratio_table(speed, quantity) for quantity, title in titles.items()}


def measured_on(results: Results) -> str:
    """Returns a sentence with the machine and its versions, or a table of several machines."""
    machines = _machines(results)
    if len(machines) == 1:
        return f"Measured on {next(iter(machines))}."
    rows = [[text, ", ".join(parts)] for text, parts in machines.items()]
    return text_table(["measured on", "results"], rows)


def _machines(results: Results) -> dict[str, list[str]]:
    """Returns the measured parts by description of the machine: {description: parts}."""
    machines: dict[str, list[str]] = {}
    for part, result in results.items():
        if machine := result.get("machine"):
            machines.setdefault(_machine_text(machine), []).append(part)
        for one in result.get("machines", ()):
            parts = [part] if len(results) > 1 else one["parts"]
            machines.setdefault(_machine_text(one["machine"]), []).extend(parts)
    return machines


def _machine_text(machine: dict[str, Any]) -> str:
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    backend = f"{'with' if machine['native'] else 'without'} the native backend"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, torch on {threads}, {backend}; "
        f"{machine['system']}, {versions}"
    )


def one_part(part: str, values: Callable[[dict[str, Any]], dict[str, Any]]) -> Section:
    """Returns a section of one file of results; its template and its variable have that name."""
    name = part.replace("-", "_")
    return Section(name, (part,), lambda results: {name: values(results[part])})


CHARTS = {
    "depth-development": depth_chart,
    "growth": growth_chart,
    "posteriors": posteriors_chart,
}
TABLES = ("tables-judged-60", "tables-judged-240")
KNOWN = ("known-known-60", "known-known-240", "known-judged-60", "known-judged-240")
MIXED = ("mixed", "mixed-judged")
DEPTH = ("depth-development", "depth-judged", "pruning")
COUPLINGS = ("speed", "growth", "reaching", "memory", "numerics", "gradients", "spectra")
DENSITIES = """# Benchmarks

Densities of real tables. Other pages compare [densities of tables whose density is
known](benchmarks-known.md), [tables of mixed columns](benchmarks-mixed.md),
[couplings](benchmarks-couplings.md) and [flows of
images](benchmarks-images.md) with other libraries, and show [how deep flows of real data have to
be](benchmarks-depth.md) and [how exact and fast measurements are](benchmarks-measuring.md).
`python -m benchmarks write-page` writes them from
`benchmarks/results/`.
"""

# Each page: its first lines, and its sections.
PAGES: dict[str, tuple[str, tuple[Section, ...]]] = {
    "benchmarks.md": (DENSITIES, (Section("tables", TABLES, tables_values),)),
    "benchmarks-known.md": (
        "# Densities of tables whose density is known\n",
        (Section("known", KNOWN, known_values),),
    ),
    "benchmarks-mixed.md": (
        "# Densities of mixed columns\n",
        (Section("mixed", MIXED, mixed_values),),
    ),
    "benchmarks-depth.md": (
        "# Depth on real data\n",
        (Section("depth", DEPTH, depth_values),),
    ),
    "verdict.md": ("# How the verdict decides\n", (one_part("verdict", verdict_values),)),
    "benchmarks-couplings.md": (
        "# Couplings: time, memory and numerics\n",
        (
            Section("couplings", COUPLINGS, couplings_values),
            one_part("splines", splines_values),
            one_part("ablation", ablation_values),
        ),
    ),
    "benchmarks-images.md": (
        "# Flows of images\n",
        (Section("images", ("images", "image-spectra"), images_values),),
    ),
    "benchmarks-measuring.md": (
        "# Measurements, factorizations, energies, scores and posteriors\n",
        (
            Section("sigma_min", ("sigma-min",), sigma_min_values),
            Section("factor", ("factor",), factor_values),
            Section("doctor", ("doctor",), doctor_values),
            one_part("energies", energies_values),
            one_part("score", score_values),
            one_part("posteriors", posteriors_values),
        ),
    ),
}
