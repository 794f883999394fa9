"""A line that samples have too wide, or too narrow, is one deviation that names the peak."""

import re

import pytest
import torch
from tests.goodness.exact_flows import line, normal

import kappaflow as kf
from kappaflow.goodness import Goodness
from kappaflow.goodness.deviation import Deviation
from kappaflow.goodness.peaks import with_peaks
from kappaflow.goodness.pooled import Pooled

SENTENCE = re.compile(
    r"The peak of E at (\S+) is (\w+ and \w+) in the samples: (\S+) % of them are between (\S+) "
    r"and (\S+), and (\S+) % of the rows\."
)


def sampled(flow, number, seed):
    """Returns samples of a flow as an array."""
    return flow.sample(number, generator=torch.Generator().manual_seed(seed)).numpy()


def pooled(of_rows, of_samples):
    """Returns rows and samples of two flows with a column E."""
    return Pooled(("E",), sampled(of_rows, 4_000, 0), sampled(of_samples, 40_000, 1))


def deviation(low, high, columns=("E",)):
    """Returns a deviation in a region."""
    region = ((low, high),) * len(columns)
    return Deviation("column", columns, region, 0.02, 0.03, 4_000, 1e-9, 0.02, "Too many", "there")


@pytest.mark.parametrize("region", [(47.3, 49.5), (49.7, 50.2), (50.5, 52.0)])
@pytest.mark.parametrize(
    ("of_rows", "of_samples", "how"),
    [(0.3, 1.0, "wider and lower"), (1.0, 0.3, "narrower and higher")],
)
def test_a_line_of_another_width_is_named_from_its_middle_or_a_side(
    region, of_rows, of_samples, how
):
    """The middle is where the two densities cross, and the shares are those of both mixtures."""
    (result,) = with_peaks(pooled(line(of_rows), line(of_samples)), [deviation(*region)])
    at, shape, expected, low, high, share = SENTENCE.fullmatch(result.sentence).groups()
    assert shape == how and result.peak == how.split()[0]
    assert float(at) == pytest.approx(50, abs=0.15)
    assert float(low) == pytest.approx(49.51, abs=0.15)  # 0.3 and 1.0 cross at 50 ± 0.49
    assert float(high) == pytest.approx(50.49, abs=0.15)
    middle = torch.tensor([[float(low)], [float(high)]])
    for flow, value in ((line(of_rows), share), (line(of_samples), expected)):
        true = kf.flows.cdf(flow, middle).diff(dim=0).item()
        assert float(value) == pytest.approx(100 * true, rel=0.15)
    assert (result.level, result.nats, result.p_value) == ("good", 0.02, 1e-9)


def test_deviations_in_one_peak_are_one():
    """The worst is kept, and so are those elsewhere and of pairs."""
    both = pooled(line(0.3), line(1.0))
    pair = deviation(49.7, 50.2, ("E", "E"))
    others = [deviation(49.7, 50.2), deviation(47.9, 49.4), pair, deviation(80.0, 85.0)]
    result = with_peaks(both, others)
    assert [each.peak for each in result] == ["wider", "", ""]
    assert result[1:] == (pair, others[-1])


@pytest.mark.parametrize(
    ("of_rows", "of_samples"),
    [
        (line(0.3), line(0.3, share=0.02)),  # too few in the line, and none around it
        (line(0.3), line(0.3)),
        (normal(scale=20.0, location=50.0), normal(scale=30.0, location=50.0)),
    ],
)
def test_other_deviations_stay_as_they_are(of_rows, of_samples):
    """A line that is missing, chance, and a column that is too wide as a whole."""
    entry = deviation(49.5, 50.5)
    assert with_peaks(pooled(of_rows, of_samples), [entry]) == (entry,)


def test_a_verdict_names_the_peak():
    """Of a comparison of samples of a flow; the estimators' findings have the same sentence."""
    rows = torch.tensor(sampled(line(0.1, columns=2), 3_000, 0))
    result = kf.two_sample(line(1.5, columns=2), rows)
    first = next(entry for entry in result.deviations if entry.peak)
    assert first.test == "column" and first.columns == ("x0",) and first.level == "bad"
    headline, sentence, *_ = Goodness(result).sentences
    assert headline == f"Do not use this flow for {first.place}."
    assert sentence == first.sentence and "peak of x0 at 50.0 is wider" in sentence
    assert not any(e is not first and e.columns == ("x0",) for e in result.deviations)
