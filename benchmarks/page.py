"""Writes the pages of the documentation from the files of results."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from benchmarks.ablation import ablation_values
from benchmarks.converting_page import converting_values
from benchmarks.densities import densities_values
from benchmarks.doctor import doctor_table
from benchmarks.energies import energies_values
from benchmarks.factor_tables import goals_table
from benchmarks.gpu_page import gpu_values
from benchmarks.growth import growth_chart
from benchmarks.images_page import image_spectra_values, image_values, mixing_values
from benchmarks.known_densities import known_values
from benchmarks.overview import overview
from benchmarks.processes import ROOT, console
from benchmarks.reaching import reaching_values
from benchmarks.score_stream import score_values
from benchmarks.sigma_min import cost_table, error_table
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
from benchmarks.targets import targets_table
from kappaflow.report.charts import write_stills

PARTS = ("speed", "growth", "reaching", "memory", "numerics", "gradients", "spectra")
TIMED = ("speed", "splines", "images")  # results with times in the tables of the first page
Results = dict[str, Any]
Values = Callable[[dict[str, Any]], dict[str, Any]]


def write_page(*, folder: Path = KEPT, docs: Path = ROOT / "docs") -> None:
    """Write the pages of the documentation from the files of results.

    Parameters
    ----------
    folder
        Folder of the results. Missing results are left out of their page; a page without any
        results stays unchanged, and docs/benchmarks.md needs all.
    docs
        Folder of the pages.
    """
    written = 0
    for name, (parts, content) in PAGES.items():
        if results := read_results(folder, parts):
            _write(docs / name, content(results))
            written += 1
    if results := read_results(folder, ("growth",)):
        images = docs / "images"
        images.mkdir(exist_ok=True)
        write_stills(growth_chart(results["growth"]), images, ("svg",))
    results = read_results(folder, OVERVIEW)
    if len(results) == len(OVERVIEW):
        _write(docs / "benchmarks.md", overview_page(results))
    if not written:
        raise SystemExit(f"No results in {folder}: run python -m benchmarks all first.")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    console.print(f"Wrote {path}", markup=False, soft_wrap=True)


def read_results(folder: Path, parts: Sequence[str] = PARTS) -> Results:
    """Returns the existing results by part, without empty ones."""
    results: Results = {}
    for part in parts:
        path = folder / f"{part}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["lines"]:
                results[part] = found
    return results


def couplings_page(results: Results) -> str:
    """Returns the page on affine couplings as Markdown.

    Args:
        results: Results by part, those in `PARTS`; any may be missing.

    Returns:
        The text, which depends only on the results.
    """
    descriptions: dict[str, str] = {}
    for part in results.values():
        descriptions |= part.get("descriptions", {})
    speed = results.get("speed")
    return _render(
        "couplings",
        results,
        targets=targets_table(results),
        place=reference_place(speed) if speed else None,
        reference=reference_table(speed) if speed else None,
        parameters=parameters_sentence(speed) if speed else "",
        failures=failures(speed) if speed else {},
        ratios=ratio_tables(speed) if speed else {},
        growth=growth_chart(results["growth"]) if "growth" in results else None,
        reaching=reaching_values(results["reaching"]) if "reaching" in results else None,
        memory=memory_table(results["memory"]) if "memory" in results else None,
        numerics=numerics_table(results["numerics"]) if "numerics" in results else None,
        gradients=gradient_table(results["gradients"]) if "gradients" in results else None,
        gradients_depth=results["gradients"]["lines"][0]["depth"] if "gradients" in results else 0,
        spectra=spectra_table(results["spectra"]) if "spectra" in results else None,
        descriptions=text_table(["row", "what it is"], descriptions.items()),
    )


def images_page(results: Results) -> str:
    """Returns the page on flows of images as Markdown.

    Args:
        results: Results by part: images, mixing, image-spectra; any may be missing.

    Returns:
        The text, which depends only on the results.
    """
    values = {
        "images": image_values,
        "mixing": mixing_values,
        "image-spectra": image_spectra_values,
    }
    parts = {
        part.replace("-", "_"): of(results[part]) if part in results else None
        for part, of in values.items()
    }
    return _render("images", results, **parts)


def factor_page(results: Results) -> str:
    """Returns the page on factorizations as Markdown.

    Args:
        results: Results by part: factor.

    Returns:
        The text, which depends only on the results.
    """
    return _render("factor", results, goals=goals_table(results["factor"]["lines"]))


def doctor_page(results: Results) -> str:
    """Returns the page on the time of the doctor as Markdown.

    Args:
        results: Results by part: doctor.

    Returns:
        The text, which depends only on the results.
    """
    found = results["doctor"]
    return _render(
        "doctor",
        results,
        table=doctor_table(found["lines"]),
        noise=found["noise"],
        repetitions=found["repetitions"],
    )


def ends_page(results: Results) -> str:
    """Returns the page on both ends of spectra as Markdown.

    Args:
        results: Results by part: sigma-min.

    Returns:
        The text, which depends only on the results.
    """
    found = results["sigma-min"]
    return _render(
        "sigma_min",
        results,
        sigma_min=error_table(found["lines"], "sigma_min"),
        sigma_max=error_table(found["lines"], "sigma_max"),
        costs=cost_table(found["costs"]),
        seeds=found["seeds"],
        features=found["features"],
    )


def page_of(part: str, values: Values, results: Results) -> str:
    """Returns the page on one file of results as Markdown, from the template of its name.

    Args:
        part: Name of the results; the template and its variable have it too, with underscores.
        values: Values for the page, from the results.
        results: Results by part: this one.

    Returns:
        The text, which depends only on the results.
    """
    name = part.replace("-", "_")
    return _render(name, results, **{name: values(results[part])})


def tables_page(results: Results) -> str:
    """Returns the page on densities of real tables as Markdown.

    Args:
        results: Results by part and seconds, such as tables-judged-60; some may be missing.

    Returns:
        The text, which depends only on the results.
    """
    return _render("tables", results, **tables_values(results))


def overview_page(results: Results) -> str:
    """Returns the page with the main figures of every benchmark as Markdown.

    Args:
        results: All results by part.

    Returns:
        The text, which depends only on the results.
    """
    found = results["tables-judged-60"]
    against = found["against"][found["best"]]
    return _render(
        "benchmarks",
        results,
        tables=overview(results),
        judged={
            "seconds": found["seconds"],
            "gain": mean(line["difference"] for line in against),
            "lost": [line["table"] for line in against if line["difference"] < 0],
        },
        place=reference_place(results["speed"]),
        machines=machines_table(results),
        backend={part: _backend_text(results[part]["machine"]) for part in TIMED},
    )


def _render(name: str, results: Results, **values: Any) -> str:  # noqa: ANN401
    """Returns the text of a template, whose `measured` is a sentence on the machines."""
    return _template(f"{name}.md.jinja").render(measured=measured_on(results), **values)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Markdown from our own numbers
    )
    return environment.get_template(name)


def ratio_tables(speed: dict[str, Any]) -> dict[str, str]:
    """Returns the table of each quantity over the grid; empty if the grid is a single place."""
    titles = {
        "train_step": "Training step",
        "forward_backward": "Forward and backward",
        "log_prob": "log_prob without gradient",
        "sample": "Sampling without gradient",
    }
    places = {(line["depth"], line["batch"]) for line in speed["lines"]}
    if len(places) < 2:
        return {}
    return {title: ratio_table(speed, quantity) for quantity, title in titles.items()}


def measured_on(results: Results) -> str:
    """Returns a sentence with the processor and its settings, or a table of several."""
    found = _machines(results, _processor_text)
    if len(found) == 1:
        return f"Measured on {next(iter(found))} ([versions](benchmarks.md#machines))."
    return text_table(["measured on", "results"], _rows(found))


def machines_table(results: Results) -> str:
    """Returns the machines with all versions, and what was measured on each."""
    head, whole = ["machine", "results"], _machines(results, _machine_text)
    versions = {text.rpartition("; ")[2] for text in whole}
    if len(versions) > 1:
        return text_table(head, _rows(whole))
    table = text_table(head, _rows(_machines(results, _processor_text)))
    return f"{versions.pop()}.\n\n{table}"


def _rows(machines: dict[str, list[str]]) -> list[list[str]]:
    return [[text, ", ".join(parts)] for text, parts in machines.items()]


def _machines(results: Results, text: Callable[[dict[str, Any]], str]) -> dict[str, list[str]]:
    """Returns the measured parts by description of the machine: {description: parts}."""
    machines: dict[str, list[str]] = {}
    for part, result in results.items():
        if machine := result.get("machine"):
            machines.setdefault(text(machine), []).append(part)
        for one in result.get("machines", ()):
            parts = [part] if len(results) > 1 else one["parts"]
            machines.setdefault(text(one["machine"]), []).extend(parts)
    return machines


def _machine_text(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{_processor_text(machine)}; {machine['system']}, {versions}"


def _processor_text(machine: dict[str, Any]) -> str:
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    backend = _backend_text(machine)
    return f"{machine['processor']}, {machine['cores']} cores, torch on {threads}, {backend}"


def _backend_text(machine: dict[str, Any]) -> str:
    return f"{'with' if machine['native'] else 'without'} the native backend"


# Pages made from one file of results, by its name.
ALONE: dict[str, Values] = {
    "ablation": ablation_values,
    "converting": converting_values,
    "splines": splines_values,
    "energies": energies_values,
    "score": score_values,
    "densities": densities_values,
    "known-densities": known_values,
    "gpu": gpu_values,
}

# Each page, its files of results, and the function that makes it.
PAGES: dict[str, tuple[Sequence[str], Callable[[Results], str]]] = {
    "benchmarks-couplings.md": (PARTS, couplings_page),
    "benchmarks-images.md": (("images", "mixing", "image-spectra"), images_page),
    "benchmarks-factor.md": (("factor",), factor_page),
    "benchmarks-doctor.md": (("doctor",), doctor_page),
    "benchmarks-sigma-min.md": (("sigma-min",), ends_page),
    "benchmarks-tables.md": (
        ("tables-judged-60", "tables-judged-240", "tables-development-60"),
        tables_page,
    ),
    **{
        f"benchmarks-{part}.md": ((part,), partial(page_of, part, values))
        for part, values in ALONE.items()
    },
}
# The first page needs all of them, but for those that it does not show.
OVERVIEW = tuple(
    dict.fromkeys(
        part
        for parts, _ in PAGES.values()
        for part in parts
        if part not in ("gpu", "growth", "reaching", "ablation")
    )
)
