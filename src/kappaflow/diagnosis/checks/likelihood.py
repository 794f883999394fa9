"""KF501, KF502, KF504, KF505: the held-out likelihood, compared with simple densities."""

import math
from collections.abc import Iterator, Sequence

from kappaflow.diagnosis.check import Symptom, check
from kappaflow.diagnosis.references import Comparison
from kappaflow.finding import Evidence, Finding

WORSE = 0.02  # nats per row by which a flow is worse, if also by three standard errors
KNOWN = 0.1  # nats per row: largest two standard errors for a comparison that counts as decided
FEW_ROWS, UNCERTAIN = 100, 0.2  # fewer rows are few; nats of standard error that are too many


def comparison_findings(
    comparisons: Sequence[Comparison],
    standard_error: float | None = None,
    rows: int = FEW_ROWS,
) -> Iterator[Finding]:
    """Runs the checks KF501, KF504 and KF505 on the comparisons of a flow with references.

    The comparisons are with the Gaussian, then with the mixture, or empty. `standard_error` is
    that of the flow's mean NLL over `rows` held-out rows; None if it is not known.

    Yields:
        A warning for each reference that is better by three standard errors and 0.02 nats, a note
        if there are too few rows to decide, and a note if the flow is not better.
    """
    decided = False
    for result in comparisons:
        if math.isnan(result.nll) or (result.kind != "Gaussian" and result.components == 1):
            continue  # a mixture of one component is the Gaussian
        reach = 2 * result.standard_error
        least = max(WORSE, 3 * result.standard_error)
        worse = not math.isfinite(result.difference) or result.difference > least
        if worse or (result.fair and not decided and result.difference > -reach):
            decided = True
            if not worse and not reach <= KNOWN:
                yield from too_few_rows(result)
            elif result.kind == "Gaussian":
                yield from no_better_than_gaussian(result, worse=worse)
            else:
                yield from no_better_than_mixture(result, worse=worse)
    if decided or standard_error is None or rows >= FEW_ROWS or standard_error <= UNCERTAIN:
        return
    uncertain = Symptom(
        f"There are too few held-out rows ({rows:,}) for a reliable likelihood: its standard "
        f"error is {standard_error:.2f} nats per row.",
        {"rows": rows, "standard_error": standard_error},
        cause="The mean of few rows depends on which rows were held out.",
        fix="Give more rows.",
    )
    yield too_few_rows.finding(uncertain)


@check(
    "KF501",
    "the flow is no better than a Gaussian on held-out rows",
    subject="run",
    severity="warning",
    cause="The flow was trained too little, or memorized too few training rows.",
    fix="Train longer, give more rows, or use fewer and smaller layers (depth, hidden).",
)
def no_better_than_gaussian(result: Comparison, *, worse: bool) -> Iterator[Symptom]:
    """A Gaussian (with a context: a linear-Gaussian regression) is fitted to the training rows
    and compared with the flow on held-out rows, paired by row. It is a warning if the flow is
    worse by three standard errors and 0.02 nats, and a note if neither is better and the
    difference is known to 0.1 nats. `kappaflow fit` and `kappaflow doctor RUN` compare on the test
    rows of the run, `kappaflow.doctor(flow, x, train=rows)` on `x`. Without `train`, from 200 rows
    on, the Gaussian is fitted to a random half of `x` and compared on the other half; the doctor
    then concludes only "worse".

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = 3 * torch.randn(400, 2)
    """
    yield _symptom(result, worse=worse)


@check(
    "KF504",
    "the flow is no better than a Gaussian mixture on held-out rows",
    subject="run",
    severity="warning",
    cause="The flow was trained too little, or memorized too few training rows.",
    fix="Train longer, give more rows, or use fewer and smaller layers (depth, hidden).",
)
def no_better_than_mixture(result: Comparison, *, worse: bool) -> Iterator[Symptom]:
    """The same as KF501, with a mixture of up to 32 Gaussians with full covariances, fitted to
    at most 5,000 training rows. The BIC chooses the number (Schwarz 1978).

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = 0.1 * torch.randn(600, 2)
        x[:300] += 1
        x[300:] -= 1
    """
    yield _symptom(result, worse=worse)


def _symptom(result: Comparison, *, worse: bool) -> Symptom:
    """Returns the symptom of a flow that is worse than a reference, or no better."""
    opening = f"On {result.rows:,} held-out rows the flow is"
    amount = f"{result.difference:.2f} ± {result.standard_error:.2f} nats per row"
    if not worse:
        return Symptom(
            f"{opening} no better than {result.name}: the difference is {amount}.",
            _evidence(result),
            severity="note",
            cause="The data is as simple as that density, or the flow has not learned more than "
            "it.",
            fix="Use the simpler density, or train longer.",
        )
    than = f"{amount} worse than"
    if not math.isfinite(result.difference):
        than = "without a finite likelihood on some rows, and so worse than"
    fitted = "" if result.fair else " fitted to the other half of them"
    return Symptom(f"{opening} {than} {result.name}{fitted}.", _evidence(result))


def _evidence(result: Comparison) -> Evidence:
    return {
        "nll": result.nll + result.difference,
        "reference_nll": result.nll,
        "difference": result.difference,
        "standard_error": result.standard_error,
        "components": result.components,
        "rows": result.rows,
    }


@check(
    "KF505",
    "too few held-out rows to decide",
    subject="run",
    severity="note",
    cause="The difference is within two standard errors of zero.",
    fix="Give more rows, or use the simpler density.",
)
def too_few_rows(result: Comparison) -> Iterator[Symptom]:
    """The difference to a Gaussian or a mixture is within two standard errors of zero, and two
    standard errors exceed 0.1 nats per row. Or there are fewer than 100 held-out rows, and the
    standard error of the mean NLL is above 0.2 nats.
    """
    better = "better" if result.difference < 0 else "worse"
    known = (
        f": it is {abs(result.difference):.2f} ± {result.standard_error:.2f} nats per row {better}"
    )
    if not math.isfinite(result.standard_error):  # a single row has no standard error
        known = ""
    yield Symptom(
        f"There are too few held-out rows ({result.rows:,}) to tell whether the flow is better "
        f"than {result.name}{known}.",
        _evidence(result),
    )


@check(
    "KF502",
    "the flow is no better than pixel histograms on held-out images",
    subject="run",
    severity="warning",
    cause="The flow was trained too little, or memorized too few images.",
    fix="Train longer, give more images, or use a smaller model (steps, hidden).",
)
def image_likelihood_findings(
    bits: float | None, standard_error: float | None, independent: float | None
) -> Iterator[Symptom]:
    """KF501 for images: the reference treats each pixel as independent, with the histogram of
    its values in the training images.

    Args:
        bits: Mean bits per dimension of held-out images; None if there are none.
        standard_error: Standard error of the paired difference over the images; of `bits` if the
            difference's is not known.
        independent: Mean bits per dimension of the same images under independent pixels.
    """
    if bits is None or independent is None or math.isnan(bits):
        return
    worse, error = bits - independent, standard_error or 0.0
    if not worse > -2 * error:
        return
    amount = f"needs {worse:.2f} bits per dimension more than"
    if worse <= 2 * error:
        amount = f"is no better ({worse:.3f} ± {error:.3f} bits per dimension) than"
    yield Symptom(
        f"On held-out images the flow {amount} the histograms of single pixels.",
        {
            "bits_per_dimension": bits,
            "independent_bits_per_dimension": independent,
            "standard_error": standard_error,
        },
    )
