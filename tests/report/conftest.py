"""A made-up report, the same on every machine, and a browser to open pages in.

The report has ten columns, sixteen layers, forty epochs.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.diagnosis import Comparison
from kappaflow.finding import Finding
from kappaflow.report.content import (
    About,
    Correlations,
    Latent,
    Marginal,
    Pairs,
    Report,
    ScoreDensities,
    TableCharts,
    WorstRow,
    WorstRows,
)
from kappaflow.report.result import Conditioning, Likelihood, Result, Separation

CHROMIUM = Path(os.environ.get("KAPPAFLOW_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
QUANTILES = {"min": 0.6, "p05": 0.75, "median": 1.0, "p95": 1.7, "max": 2.6}
MOST_MS = 300_000  # longest wait, on a busy machine
MakeReport = Callable[..., Report]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Yields a Chromium without a window; it is never downloaded."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path):
    """Yields a function that opens a page and checks what must hold for every page."""
    contexts = []

    def open_(html: str, *, width: int = 1280, scheme: str = "light") -> Any:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        context.set_default_timeout(MOST_MS)
        contexts.append(context)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url),
        )
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        plots = page.locator("[data-figure]").count()
        drawn = page.locator("[data-figure] .plot-container .main-svg:first-child").count()
        assert complaints == []
        assert drawn == plots > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def make_report() -> MakeReport:
    """Returns a function that makes a report of any size; keywords replace its parts."""
    return build_report


@pytest.fixture(scope="session")
def report() -> Report:
    """Returns the report of the usual size."""
    return build_report()


def build_report(
    *, columns: int = 10, layers: int = 16, epochs: int = 40, rows: int = 600, **parts: Any
) -> Report:
    """Returns a report, made by numpy with a fixed seed."""
    rng = np.random.default_rng(7)
    names = [f"column {i + 1}" for i in range(columns)]
    data = np.where(rng.random((rows, 1)) < 0.35, -2.2, 0.8) + 0.7 * rng.standard_normal((
        rows,
        columns,
    ))
    samples = 0.97 * data[rng.permutation(rows)] + 0.25 * rng.standard_normal((rows, columns))
    curves, scores = _curves(rng, epochs), _scores(rng)
    profile = ProfileQuantiles.model_validate(_profile(rng, layers))
    report = Report[TableCharts](
        about=_about(columns, layers, epochs),
        result=_result(layers, profile),
        curves=curves,
        best_epoch=max(1, epochs - 6),
        profile=profile,
        charts=TableCharts(
            worst_rows=_worst_rows(names, data),
            scores=[scores],
            marginals=[_marginal(n, data[:, i], samples[:, i]) for i, n in enumerate(names)],
            correlations=_correlations(names, data, samples),
            pairs=Pairs(columns=names, data=_rounded(data[:400]), samples=_rounded(samples[:400])),
            latent=_latent(rng, columns),
        ),
    )
    return changed(report, **parts)


def changed(report: Any, **parts: Any) -> Any:
    """Returns a report with other parts, each where it belongs: its result, its charts, itself."""
    for name in ("result", "charts"):
        part = getattr(report, name)
        own = {key: parts.pop(key) for key in type(part).model_fields if key in parts}
        report = report.model_copy(update={name: part.model_copy(update=own)})
    return type(report).model_validate(dict(report) | parts)


def _result(layers: int, profile: ProfileQuantiles) -> Result:
    test, *parts = _likelihoods()
    verdict = (
        "The flow is finite and invertible on the points examined. One layer is much worse "
        "conditioned than the others; it does not hurt in float32, and would in bfloat16."
    )
    return Result(
        kind="table",
        likelihood="exact",
        test=test,
        parts=parts,
        references=_references(),
        separations=[_separation()],
        **dict(Conditioning.at(profile)),
        ok=True,
        verdict=verdict,
        findings=_findings(layers),
        notes=[
            "115 duplicate rows were found; they were kept.",
            "The column 'column 3' holds the value 0 in 0.4 % of its rows.",
        ],
    )


def _worst_rows(names: list[str], data: np.ndarray) -> WorstRows:
    """Returns three rows of a text file, with twelve columns at most."""
    rows = [
        WorstRow(
            name=f"line {17 + i}",
            values=_rounded(data[i : i + 1, :12])[0],
            log_prob=-90.5 + i,
            unusual=(names[-1], 57.0, 12.3),
        )
        for i in range(3)
    ]
    return WorstRows(columns=names[:12], left_out=max(0, len(names) - 12), rows=rows)


def _correlations(names: list[str], data: np.ndarray, samples: np.ndarray) -> Correlations:
    """Returns the correlations of up to twelve columns."""
    both = [np.corrcoef(rows, rowvar=False).reshape(len(names), -1) for rows in (data, samples)]
    triangles = [[_rounded(whole[i, :i]) for i in range(len(names[:12]))] for whole in both]
    return Correlations(
        columns=names[:12],
        left_out=max(0, len(names) - 12),
        rows=len(data),
        data=triangles[0],
        samples=triangles[1],
    )


def _references() -> list[Comparison]:
    """Returns a Gaussian and a mixture of four."""
    return [
        Comparison("Gaussian", 1, False, 600, 31.415, 12.914, -2.5, 0.12),
        Comparison("Gaussian mixture", 4, False, 600, 29.5, 11.0, 0.5, 0.12),
    ]


def _about(columns: int, layers: int, epochs: int) -> About:
    return About(
        title="Gamma telescope, real_nvp",
        data=[
            ("Source", "magic.parquet"),
            ("Rows", "12,332"),
            ("Columns", str(columns)),
            ("Split", "9,865 training, 1,233 validation, 1,234 test"),
        ],
        model=[
            ("Recipe", "real_nvp"),
            ("Depth", f"{layers} couplings"),
            ("Partition", "half"),
            ("Networks", "hidden (128, 128)"),
            ("Parameters", "291,360"),
        ],
        training=[
            ("Epochs", str(epochs)),
            ("Stopped because", "validation did not improve for 6 epochs"),
            ("Time", "41 s"),
            ("Optimizer", "Adam, learning rate 1e-3, batches of 512"),
            ("Versions", "kappaflow 0.1.0, torch 2.9.1, Python 3.11"),
        ],
        finished_at="2026-03-01T08:05:09+00:00",
        command="kappaflow fit magic --out runs/magic",
        fingerprint="03413cd7" * 8,
    )


def _curves(rng: np.random.Generator, epochs: int) -> list[dict[str, float | int | None]]:
    curves: list[dict[str, float | int | None]] = []
    for i in range(epochs):
        fall = 5.0 * np.exp(-i / 6)
        validation = 9.3 + fall + 0.03 * rng.standard_normal() + 0.0004 * max(0, i - 30) ** 2
        kappa = float(1 + 38 * (1 - np.exp(-i / 12)))
        curves.append({
            "epoch": i + 1,
            "train_nll_standardized": round(9.1 + float(fall), 5),
            "validation_nll_standardized": round(float(validation), 5),
            "validation_nll_p95": round(float(1.5 * validation), 5),
            "validation_nll_p99": round(float(2.2 * validation), 5),
            "validation_nll_max": round(float(4.0 * validation), 5),
            "condition_number_median": round(kappa, 5) if i % 2 == 0 else None,
            "condition_number_p95": round(3.1 * kappa, 5) if i % 2 == 0 else None,
            "round_trip_data": round(2e-7 * kappa, 12),
            "round_trip_latent": round(7e-7 * kappa, 12),
            "learning_rate": 1e-3 if i < 25 else 3e-4,
            "time_s": round(1.02 * (i + 1), 3),
            "memory_bytes": 183_500_800,
            "skipped_steps": 0,
        })
    return curves


def _likelihoods() -> list[Likelihood]:
    quantiles = {"median": 8.412, "p95": 15.204, "p99": 21.97, "max": 48.31}
    return [
        Likelihood(
            name="test",
            rows=1234,
            nll=27.8312,
            nll_standardized=9.3125,
            standard_error=0.1431,
            quantiles=quantiles,
        ),
        Likelihood(
            name="test without atoms",
            rows=1201,
            nll=27.6114,
            nll_standardized=9.0927,
            standard_error=0.1402,
            quantiles=quantiles | {"max": 41.2},
        ),
    ]


def _separation() -> Separation:
    return Separation(
        name="gamma rays against hadrons",
        rows_in=1234,
        rows_out=669,
        auc=0.8412,
        auc_standard_error=0.0102,
    )


def _scores(rng: np.random.Generator) -> ScoreDensities:
    edges = np.linspace(-45, 0, 46)
    inside = np.histogram(-9.3 + 3 * rng.standard_normal(1234), edges, density=True)[0]
    outside = np.histogram(-16.0 + 6 * rng.standard_normal(669), edges, density=True)[0]
    return ScoreDensities(
        edges=_rounded(edges),
        density_in=_rounded(inside),
        density_out=_rounded(outside),
    )


def _marginal(name: str, data: np.ndarray, samples: np.ndarray) -> Marginal:
    edges = np.linspace(-5, 4, 37)
    return Marginal(
        column=name,
        edges=_rounded(edges),
        data=_rounded(np.histogram(data, edges, density=True)[0]),
        samples=_rounded(np.histogram(samples, edges, density=True)[0]),
    )


def _latent(rng: np.random.Generator, columns: int) -> Latent:
    edges = np.linspace(-5, 5, 51)
    middle = (edges[1:] + edges[:-1]) / 2
    density = np.histogram(1.03 * rng.standard_normal(8000), edges, density=True)[0]
    return Latent(
        edges=_rounded(edges),
        density=_rounded(density),
        normal=_rounded(np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)),
        coordinates=[
            (round(0.05 * float(m), 4), round(1 + 0.06 * float(s), 4))
            for m, s in rng.standard_normal((columns, 2))
        ],
        beyond_four=1.2e-4,
    )


def _profile(rng: np.random.Generator, layers: int) -> dict[str, Any]:
    """Returns what `Profile.to_dict` does, for a flow whose layer at two thirds is the worst."""
    worst = 2 * layers // 3
    stretch = 1.0 + 0.12 * rng.random(layers)
    squeeze = 1.0 - 0.1 * rng.random(layers)
    stretch[worst] = 3.4
    growth = min(1.0, 16 / layers)
    sigma_max = np.exp(np.cumsum(growth * np.log(stretch)))
    sigma_min = np.exp(np.cumsum(growth * np.log(squeeze)))
    kappa = sigma_max / sigma_min
    eps = 2.0**-23
    forward = np.arange(1, layers + 1) / layers
    return {
        "layers": [f"{i} AffineCoupling" for i in range(layers)],
        "points": 64,
        "eps": eps,
        "status": "exact",
        "worst_layer": worst,
        "predicted_round_trip": {
            k: _significant(3 * eps * kappa[-1] * q) for k, q in QUANTILES.items()
        },
        "layer_condition_number": _table(stretch / squeeze, least=1.0),
        "layer_sigma_max": _table(stretch),
        "layer_sigma_min": _table(squeeze),
        "layer_log_det": _table(np.log(stretch * squeeze)),
        "layer_round_trip": _table(eps * stretch / squeeze),
        "condition_number": _table(kappa, least=1.0),
        "sigma_max": _table(sigma_max),
        "sigma_min": _table(sigma_min),
        "log_det": _table(np.cumsum(np.log(stretch * squeeze))),
        "round_trip_data": _table(eps * kappa[-1] * (1.1 - forward)),
        "round_trip_latent": _table(2.5 * eps * kappa[-1] * forward),
    }


def _table(values: np.ndarray, least: float = -np.inf) -> dict[str, list[float]]:
    return {
        name: [max(least, _significant(v * q)) for v in values] for name, q in QUANTILES.items()
    }


def _findings(layers: int) -> list[Finding]:
    worst = f"{2 * layers // 3} AffineCoupling"
    return [
        Finding(
            code="KF203",
            severity="warning",
            layer=worst,
            message="One layer has a condition number of 3.6; the median of the others is 1.1.",
            cause="Its scale network reaches the bound on the log-scale for 12 % of the rows.",
            fix="Train with a smaller bound on the log-scales, or add a coupling next to it.",
            evidence={"condition_number": 3.61, "others": 1.12, "share_at_bound": 0.12},
        ),
        Finding(
            code="KF410",
            severity="note",
            layer=None,
            message="The latent has 1.9 times as many coordinates beyond 4 as a Gaussian.",
            cause="The data have heavier tails than the couplings unfold.",
            fix="More depth, or a spline flow, if tail probabilities matter to you.",
            evidence={"beyond_four": 1.2e-4, "points": 12340},
        ),
    ]


def _significant(value: float) -> float:
    return float(f"{value:.5g}")


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 4).tolist()
