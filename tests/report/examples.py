"""Reports, diagnoses and pages for the tests of this folder."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kappaflow as kf
from kappaflow.goodness.given import given_densities
from kappaflow.goodness.inputs import opened
from kappaflow.report.content import Report
from kappaflow.report.files import from_json

GOLD = Path(__file__).parent / "gold" / "report.json"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
NAN, INF = float("nan"), float("inf")


class Page(HTMLParser):
    """The tags of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script":
            self.scripts.append((attributes, data))
            self.tags.append(("", {}))
        elif tag == "style":
            self.styles.append(data)
            self.tags.append(("", {}))
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        """The text of the page, with single spaces."""
        return " ".join(" ".join(self.text).split())

    @property
    def figures(self) -> dict:
        """What the page's script draws."""
        (data,) = (
            text for attributes, text in self.scripts if attributes.get("id") == "figure-data"
        )
        return json.loads(data, parse_constant=_refuse)


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def build_report(
    *, columns: int = 10, layers: int = 16, epochs: int = 40, rows: int = 600, **parts: Any
) -> Report:
    """Returns the report of the gold file at any size; keywords replace its parts."""
    content = json.loads(GOLD.read_text(encoding="utf-8"))
    names = [f"column {i + 1}" for i in range(columns)]
    few = {"columns": names[:12], "left_out": max(0, columns - 12)}
    charts, profile = content["charts"], content["profile"]
    charts["worst_rows"] |= few
    for row in charts["worst_rows"]["rows"]:
        row |= {"values": repeated(row["values"], len(few["columns"]))}
        row |= {"unusual": (names[-1], 57.0, 12.3)}
    compared, corner, drawn = charts["two_sample"], charts["corner"], min(columns, 5)
    marginals = repeated(compared["marginals"], columns)
    compared["marginals"] = [{**m, "column": n} for m, n in zip(marginals, names, strict=True)]
    for key in ("frames", "row_shares", "sample_shares"):
        corner[key] = repeated(corner[key], drawn)
    clouds = {k: np.resize(corner[k], (min(rows, 400), drawn)).tolist() for k in KNOWN}
    for key in ("densities", "correlations"):
        corner[key] = repeated(corner[key], drawn * (drawn - 1) // 2)
    charts["corner"] = {**corner, **clouds, "columns": names[:drawn]}
    charts["latent"]["coordinates"] = repeated(charts["latent"]["coordinates"], columns)
    for name, table in profile.items():
        if isinstance(table, dict) and name != "predicted_round_trip":
            profile[name] = {key: repeated(values, layers) for key, values in table.items()}
    profile |= {"layers": [f"{i} AffineCoupling" for i in range(layers)]}
    profile |= {"worst_layer": 2 * layers // 3}
    curves = repeated(content["curves"], epochs)
    content["curves"] = [{**curve, "epoch": i + 1} for i, curve in enumerate(curves)]
    content["best_epoch"] = max(1, epochs - 6)
    return changed(from_json(json.dumps(content)), **parts)


KNOWN = ("rows", "samples")


def repeated(values: list, count: int) -> list:
    """Returns so many values, the first ones again and again."""
    return [values[i % len(values)] for i in range(count)]


def changed(report: Any, **parts: Any) -> Any:
    """Returns a report with other parts, each where it belongs: its result, its charts, itself."""
    for name in ("result", "charts"):
        part = getattr(report, name)
        own = {key: parts.pop(key) for key in type(part).model_fields if key in parts}
        report = report.model_copy(update={name: part.model_copy(update=own)})
    return type(report).model_validate(dict(report) | parts)


def conditional_rows(count: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns rows and contexts; the width of the rows grows with the context."""
    context = torch.rand(count, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return context + (0.1 + context) * noise, context


def compared_at_contexts() -> dict[str, Any]:
    """Returns comparisons of an untrained conditional flow, as parts of a report."""
    torch.manual_seed(0)
    flow, pair = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1), conditional_rows()
    with opened(flow, *pair) as (own, inputs):
        given = given_densities(own, inputs)
    parts = {"two_sample": kf.two_sample(flow, *pair), "calibration": kf.calibration(flow, *pair)}
    return parts | {"given": given, "corner": parts["two_sample"].corner}


def renamed(result: Any, name: str) -> Any:
    """Returns a comparison whose columns have another name."""
    marginals = tuple(replace(part, column=name) for part in result.marginals)
    deviations = tuple(
        replace(part, columns=(name,) * len(part.columns), sentence=name, place=name)
        for part in result.deviations
    )
    return replace(result, marginals=marginals, deviations=deviations)


def with_wrong_samples():
    """A flow whose samples come with the log_det of the wrong sign: KF206."""

    class Sampling(kf.Flow):
        def sample_and_log_prob(self, n, context=None, *, generator=None):
            x, log_prob = super().sample_and_log_prob(n, context, generator=generator)
            return x, log_prob - 2 * self.bijection(x, context)[1]

    flow = Sampling(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, log_scale=[1.0, 0.0]))
    return kf.doctor(flow, points())


def ill_conditioned():
    """A flow of a condition number of e^14: KF301."""
    layers = kf.bijections.ElementwiseAffine(2, log_scale=[12.0, -2.0])
    return kf.doctor(kf.Flow(kf.StandardNormal(2), layers), 1e-6 * points())


def not_finite():
    """A flow whose scale overflows: KF101."""
    layers = kf.bijections.ElementwiseAffine(2, log_scale=[200.0, 0.0])
    return kf.doctor(kf.Flow(kf.StandardNormal(2), layers), points())


def with_small_error():
    """A log_det that is off by 0.01 nats where it varies by several: KF203."""
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=4, hidden=(8,)).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    class Off:
        def encode(self, x):
            z, log_det = flow.bijection(x)
            return z, log_det + 0.01

        def decode(self, z):
            x, log_det = flow.bijection.inverse(z)
            return x, log_det - 0.01

    return kf.doctor(Off(), points().double())


def healthy():
    """A flow without a finding above a note."""
    return kf.doctor(kf.real_nvp(3, depth=2, hidden=(8,)), torch.randn(64, 3))


def points():
    """64 points of N(0, I)."""
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
