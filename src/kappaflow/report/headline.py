"""The top of the page: the verdict as a colour and a word, and the numbers that matter most."""

from collections import Counter
from dataclasses import dataclass

from kappaflow.diagnosis import Diagnosis
from kappaflow.report.content import Budget, ProfileView, Report
from kappaflow.report.figures import Depth
from kappaflow.report.image_content import ImageReport
from kappaflow.report.numbers import fixed, is_finite, significant, with_error

Judged = Report | ImageReport | Diagnosis
JOINT = "the padding has no density: this is no likelihood, and compares with none"


@dataclass(frozen=True)
class KeyFigure:
    """A number at the top of the page.

    Attributes:
        label: What it is.
        value: The number as text.
        unit: Its unit, or nothing.
        note: What to compare it with.
        finite: Whether it is a number at all.
    """

    label: str
    value: str
    unit: str
    note: str
    finite: bool = True


def level(report: Judged) -> str:
    """Returns "error", "warning" or "ok"."""
    if not report.ok:
        return "error"
    severities = {finding.severity for finding in report.findings}
    return "warning" if "warning" in severities else "ok"


def level_in_words(report: Judged) -> str:
    """Returns the level as a word or two, with the number of findings behind it."""
    count = Counter(finding.severity for finding in report.findings)
    match level(report):
        case "error":
            return f"Do not trust it yet: {_plural(count['error'], 'error')}"
        case "warning":
            return f"Usable, with {_plural(count['warning'], 'warning')}"
        case _:
            return "No problem found"


def key_figures(report: Report) -> list[KeyFigure]:
    """Returns four to six numbers: likelihood, conditioning, round trips, separation."""
    return [
        *_likelihood(report),
        *_conditioning(report.profile, report.budget),
        *_separation(report),
    ]


def image_key_figures(report: ImageReport) -> list[KeyFigure]:
    """Returns the likelihood of held-out images, conditioning, and round trips."""
    return [*_image_likelihood(report), *_conditioning(report.profile)]


def diagnosis_key_figures(diagnosis: Diagnosis, depth: Depth | None) -> list[KeyFigure]:
    """Returns the counts of findings, the float type to use, conditioning, and round trips."""
    count = Counter(finding.severity for finding in diagnosis.findings)
    kinds = [_plural(count[kind], kind) for kind in ("error", "warning", "note") if count[kind]]
    found = [KeyFigure("Findings", ", ".join(kinds) or "none", "", "the most severe come first")]
    precision = diagnosis.measured.get("precision")
    if isinstance(precision, str):
        note = "from the worst condition number at the points"
        found.append(KeyFigure("Float type", precision, "", note, "unusable" not in precision))
    return found if depth is None else [*found, *_conditioning(depth.profile)]


def gain_over_gaussian(report: Report) -> float | None:
    """Returns by how many nats a row the flow beats a Gaussian, if both are finite."""
    if not report.likelihoods or report.is_joint:
        return None
    flow, gaussian = report.likelihoods[0].nll_standardised, report.gaussian_nll_standardised
    return gaussian - flow if is_finite(flow) and is_finite(gaussian) else None


def _likelihood(report: Report) -> list[KeyFigure]:
    if not report.likelihoods:
        return []
    first = report.likelihoods[0]
    what = "Held-out NLL" if report.padding is None else "Bound on the held-out NLL"
    note = f"a Gaussian has {fixed(report.gaussian_nll_standardised, 2)}; lower is better"
    if report.is_joint:
        what, note = "Joint NLL at the padding", JOINT
    return [
        KeyFigure(
            f"{what}, standardised",
            with_error(first.nll_standardised, first.standard_error),
            "nats a row",
            note,
            is_finite(first.nll_standardised),
        ),
        *_weighted(report),
        KeyFigure(
            f"{what}, input units",
            with_error(first.nll, first.standard_error),
            "nats a row",
            f"{first.rows:,} rows of “{first.name}”",
            is_finite(first.nll),
        ),
    ]


def _weighted(report: Report) -> list[KeyFigure]:
    """Returns the importance-weighted likelihood, where there is one."""
    if report.padding is None or report.padding.weighted is None:
        return []
    found = report.padding.weighted
    error = significant(found.monte_carlo_error, 2)
    return [
        KeyFigure(
            "Held-out NLL, importance-weighted",
            with_error(found.nll_standardised, found.standard_error),
            "nats a row",
            f"standardised; {found.draws} draws a row, Monte Carlo error {error}",
            is_finite(found.nll_standardised),
        )
    ]


def _image_likelihood(report: ImageReport) -> list[KeyFigure]:
    part = report.likelihood
    images = f"{part.images:,} held-out images"
    nll = KeyFigure(
        "Joint NLL at the padding" if part.is_joint else "Held-out NLL",
        with_error(part.nll, part.standard_error),
        "nats an image",
        JOINT if part.is_joint else f"mean over {images}",
        is_finite(part.nll),
    )
    if part.bits_per_dimension is None:
        return [nll]
    alone = fixed(part.independent_bits, 2)
    bits = KeyFigure(
        "Held-out bits per dimension",
        with_error(part.bits_per_dimension, part.bits_standard_error),
        "bits",
        f"each pixel on its own has {alone}; lower is better",
        is_finite(part.bits_per_dimension),
    )
    return [bits, nll]


def _conditioning(profile: ProfileView, budget: Budget | None = None) -> list[KeyFigure]:
    too_much = Depth(profile).limit
    kappa = profile.condition_number
    limit = f", {significant(too_much, 1)} is too much" if too_much else ""
    data, latent = profile.round_trip_data, profile.round_trip_latent
    median, p95, asked = kappa.median[-1], kappa.p95[-1], ""
    if budget is not None:  # from more rows
        median, p95 = budget.median, budget.p95
        asked = f" ({significant(budget.asked)} asked for)"
    return [
        KeyFigure(
            "Condition number",
            significant(median),
            "median",
            f"95 %: {significant(p95)}{asked}; 1 is perfect{limit}",
            is_finite(median) and is_finite(p95),
        ),
        KeyFigure(
            "Round trip from data",
            significant(data.median[0], 2),
            "median",
            f"95 %: {significant(data.p95[0], 2)}; standardised units",
            is_finite(data.median[0]) and is_finite(data.p95[0]),
        ),
        KeyFigure(
            "Round trip from latent",
            significant(latent.median[-1], 2),
            "median",
            f"95 %: {significant(latent.p95[-1], 2)}; standardised units",
            is_finite(latent.median[-1]) and is_finite(latent.p95[-1]),
        ),
    ]


def _separation(report: Report) -> list[KeyFigure]:
    if not report.separations:
        return []
    first = report.separations[0]
    return [
        KeyFigure(
            "Separation (AUC)",
            f"{fixed(first.auc, 3)} ± {fixed(first.auc_standard_error, 3)}",
            "",
            f"{first.name}; 0.5 is a coin, 1 is perfect",
            is_finite(first.auc),
        )
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
