"""KF509 to KF511: how well samples of a flow match held-out rows.

`goodness_findings` runs them on the comparisons of `kappaflow.goodness`.
"""

from collections.abc import Iterator, Sequence

from kappaflow.diagnosis.check import Symptom, check
from kappaflow.finding import Finding
from kappaflow.goodness import Deviation, Goodness

SHOWN = 2  # deviations in a message


def goodness_findings(goodness: Goodness | None) -> Iterator[Finding]:
    """Runs KF509 to KF511: a finding for each kind of deviation that matters, with the worst."""
    if goodness is None or goodness.level == "good":
        return
    kinds = {"pit": calibration_off, "coverage": calibration_off, "overfitting": overfits}
    rules = [kinds.get(deviation.test, samples_differ) for deviation in goodness.relevant]
    for rule in dict.fromkeys(rules):
        pairs = zip(rules, goodness.relevant, strict=True)
        yield from rule([deviation for other, deviation in pairs if other is rule])


@check(
    "KF509",
    "samples do not match held-out rows",
    subject="run",
    severity="warning",
    cause="The flow has not learned this part of the distribution: training was too short, the "
    "model is too small, or its map cannot make such a shape.",
    fix="Look at the histograms of these columns. Declare domains of columns (bounds), train "
    "longer, or use more layers or bins.",
)
def samples_differ(deviations: Sequence[Deviation]) -> Iterator[Symptom]:
    """Held-out rows and ten times as many samples are compared: each column and the worst pairs
    in cells of equal counts, log_prob, and all columns by a classifier, which is trained on
    training rows if they are known. A flow that is right has this finding with a probability of
    1 %. A deviation counts if it costs 0.01 nats, or if a region with 0.2 % of the rows or samples
    has 1.5 times too many or too few samples. [How the verdict decides](verdict.md).

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = 3 * torch.randn(400, 2)
    """
    yield _symptom(deviations)


@check(
    "KF510",
    "predictions are not calibrated",
    subject="run",
    severity="warning",
    cause="The flow predicts a wrong center or width at these contexts.",
    fix="Look at the ranks by context. Train longer, give more rows there, or use more layers.",
)
def calibration_off(deviations: Sequence[Deviation]) -> Iterator[Symptom]:
    """For a conditional flow, the ranks of held-out rows among 63 samples at their context are
    uniform, over all rows and in each quantile bin of each column of the context.

    Example:
        flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
        context = torch.rand(600, 1)
        x = (0.2 + context) * torch.randn(600, 2)
    """
    yield _symptom(deviations)


@check(
    "KF511",
    "the flow overfits",
    subject="run",
    severity="warning",
    cause="The flow memorized training rows: there are too few of them for its size.",
    fix="Give more rows, use fewer and smaller layers (depth, hidden), or more dropout.",
)
def overfits(deviations: Sequence[Deviation]) -> Iterator[Symptom]:
    """The mean log_prob of training rows exceeds that of held-out rows by 0.04 nats or more,
    beyond chance. About half of it is divergence from the truth (Akaike 1973).
    """
    yield _symptom(deviations)


def _symptom(deviations: Sequence[Deviation]) -> Symptom:
    more = len(deviations) - SHOWN
    sentences = [deviation.sentence for deviation in deviations[:SHOWN]]
    if more > 0:
        sentences.append(f"There {'is' if more == 1 else 'are'} {more} more of these.")
    worst = deviations[0]
    return Symptom(
        " ".join(sentences),
        {
            "level": worst.level,
            "nats": worst.nats,
            "p_value": worst.p_value,
            "deviations": len(deviations),
            "rows": worst.rows,
        },
    )
