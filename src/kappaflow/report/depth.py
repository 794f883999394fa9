"""`DepthCurve`: likelihood and conditioning of a table against depth, as text, chart and page."""

import json
from itertools import pairwise

from kappaflow.report.charts import (
    DATA,
    MUTED,
    SAMPLES,
    SQUEEZE,
    STRETCH,
    Chart,
    Panel,
    band,
    line,
)
from kappaflow.report.numbers import count, format_time, significant, with_error
from kappaflow.report.page import (
    Charts,
    FactTable,
    Items,
    Page,
    Section,
    Text,
    TextTable,
    glossary_section,
    render_page,
)
from kappaflow.results import Part, to_plain
from kappaflow.summary import Facts, PlottedSummary

TONES = {"half": DATA, "random": SAMPLES, "mixing": SQUEEZE}
OF_TABLE = {
    "half": "couplings that keep one half of the columns and change the other, in turn",
    "random": "a fixed random order of the columns before each coupling",
    "mixing": "a learned linear map before each coupling, as Glow's 1x1 convolution; all "
    "couplings keep the same half",
}
OF_IMAGES = {
    "half": "couplings that keep one half of the channels and change the other, in turn",
    "random": "a random half of the channels, and then the rest, in each pair of steps",
    "mixing": "a learned 1x1 convolution before each coupling, as in Glow; all couplings keep the "
    "same half of the channels",
}
TERMS = ("Flow", "NLL, nat", "Held out", "Standardized", "Condition number")


class DepthPoint(Part):
    """A flow of one depth, on held-out rows or images."""

    partition: str  # "half", "random" or "mixing"
    depth: int  # number of couplings; for images that of the steps of each level
    nll: float  # mean negative log-likelihood in nats per row, on standardized columns
    standard_error: float
    # Mean difference to the flow of half the depth, row by row; None for the first
    gain: float | None = None
    gain_error: float | None = None
    condition_number: float  # 95 % quantile, from the standardized columns on
    score_s: float  # processor time to score a million rows, in seconds
    time_s: float  # time of the training in seconds
    epochs: int
    # The NLL of images of whole numbers, not standardized; None for others
    bits_per_dimension: float | None = None


class Rewritten(Part):
    """The flow with learned linear maps, rewritten as couplings of one partition alone."""

    depth: int  # depth of the flow before
    couplings: int  # number of couplings after
    layer_condition_number: float  # the largest 95 % condition number of one of its layers


class LinearPart(Part):
    """The linear map that takes the correlations out of the columns, as couplings of halves."""

    condition_number: float  # that of the map, the inverse root of the correlation matrix
    couplings: int  # number of linear couplings that `kappaflow.factor_linear` found for it
    coupling_condition_number: float  # the largest condition number of one of them
    # The least that this number can be for as many couplings with one scale each; None for an odd
    # number of columns
    lower_bound: float | None = None


class Modes(Part):
    """Two groups of rows, and the Lipschitz constant of a flow that leaves as little between.

    Constants of layers and of the flow, latent to data, are the largest at measured points, and at
    most the true ones.
    """

    distance: float  # distance of the two regions, in standardized units
    shares: tuple[float, float]  # shares of the held-out rows in each
    between: float  # upper bound for the share of rows between them, with 95 % confidence
    lipschitz: float  # the least Lipschitz constant of the flow
    layer_lipschitz: float  # the largest constant of a layer of the recommended flow
    flow_lipschitz: float  # that of the whole flow
    # The fewest of its layers whose constants multiply to `lipschitz`; None if all do not
    layers: int | None


class DepthCurve(PlottedSummary, Part):
    """Likelihood and conditioning of flows of a table, or of images, against depth."""

    data: str  # the name of the data
    model: list[tuple[str, str]]  # settings of the trainings, (label, value)
    nats: float  # the least gain for which twice the depth is worth its price
    rows: int  # number of held-out rows
    points: list[DepthPoint]  # the flows, by partition and depth
    # What the learned linear maps are as couplings; None if it was not computed
    rewritten: Rewritten | None = None
    # What theory says of the correlations; None if they have no inverse
    linear: LinearPart | None = None
    modes: Modes | None = None  # what theory says of two groups of rows; None if there are no two
    images: bool = False  # whether the data is images
    notes: list[str] = []

    @property
    def partitions(self) -> list[str]:
        """The partitions, in order."""
        return list(dict.fromkeys(point.partition for point in self.points))

    def of(self, partition: str) -> list[DepthPoint]:
        """Returns the flows with a partition, the shallowest first."""
        return [point for point in self.points if point.partition == partition]

    def recommended(self, partition: str) -> DepthPoint:
        """Returns the shallowest flow that twice the depth does not improve enough."""
        for point, deeper in pairwise(self.of(partition)):
            if not pays(deeper, self.nats):
                return point
        return self.of(partition)[-1]

    @property
    def best(self) -> DepthPoint:
        """The recommended flow: of those of each partition, the fastest that is likely enough.

        That is, within `nats` of the likeliest.
        """
        flows = [self.recommended(partition) for partition in self.partitions]
        least = min(flows, key=lambda point: point.nll)
        close = [point for point in flows if point.nll <= least.nll + self.nats]
        return min(close, key=lambda point: point.score_s)

    @property
    def recommended_depth(self) -> int:
        """The recommended number of couplings."""
        return self.best.depth

    @property
    def recommended_partition(self) -> str:
        """The partition of the recommended flow."""
        return self.best.partition

    def to_json(self) -> str:
        """Returns all numbers, with the recommended depth and partition, as JSON."""
        best = self.best
        chosen = {"recommended_depth": best.depth, "recommended_partition": best.partition}
        return json.dumps(chosen | to_plain(self), indent=2)

    def describe(self) -> list[str]:
        """Returns the results as text, a sentence or two for each partition."""
        best = self.best
        texts = [
            f"Recommended: {self.depth_of(best)}, partition {best.partition}, with "
            f"{with_error(best.nll, best.standard_error)} nats per {self._example} on "
            f"{self.rows:,} held-out {self._example}s and a 95 % condition number of "
            f"{significant(best.condition_number)}."
        ]
        texts += [self._sentence(partition) for partition in self.partitions]
        if self.rewritten is not None:
            texts.append(
                f"The {self.rewritten.depth} couplings with learned linear maps are "
                f"{self.rewritten.couplings} couplings of one partition without them; the worst "
                "of their layers has a condition number of "
                f"{significant(self.rewritten.layer_condition_number)}."
            )
        texts += [] if self.linear is None else [_of_theory(self.linear)]
        return texts + ([] if self.modes is None else [_of_modes(self.modes)])

    @property
    def _example(self) -> str:
        return "image" if self.images else "row"

    def depth_of(self, point: DepthPoint) -> str:
        """Returns the depth of a flow with its unit."""
        if self.images:
            return f"{count(point.depth, 'step')} in each level"
        return count(point.depth, "coupling")

    def _sentence(self, partition: str) -> str:
        point, flows = self.recommended(partition), self.of(partition)
        start = f"Partition {partition}: {self.depth_of(point)}"
        deeper = next((p for p in flows if p.depth > point.depth), None)
        if deeper is None or deeper.gain is None:
            gain = "" if point.gain is None else f", which still gain {point.gain:.3f} nats"
            return f"{start}, the largest depth that was tried{gain}: try more."
        most = max(0.0, deeper.gain) + 2 * (deeper.gain_error or 0.0)
        return (
            f"{start}: doubling gains {with_error(deeper.gain, deeper.gain_error)} nats and costs "
            f"{deeper.score_s / point.score_s:.1f} times the time; condition number "
            f"{significant(point.condition_number)} -> {significant(deeper.condition_number)}. If "
            f"gains keep falling, no further doubling gains more than {most:.3f} nats."
        )

    def rows_of_table(self) -> list[list[str]]:
        """Returns the rows of a table, as text, with the header first."""
        best = self.best
        head = [
            "partition", "steps" if self.images else "couplings", "held-out NLL", "gain",
            "condition 95 %", "s per million", "training", "recommended",
        ]  # fmt: skip
        bits = self.points[0].bits_per_dimension is not None
        head[3:3] = ["bits per dimension"] if bits else []
        return [head] + [
            [
                point.partition,
                str(point.depth),
                with_error(point.nll, point.standard_error),
                *([f"{point.bits_per_dimension:.3f}"] if bits else []),
                "" if point.gain is None else with_error(point.gain, point.gain_error),
                significant(point.condition_number),
                significant(point.score_s),
                f"{format_time(point.time_s)}, {count(point.epochs, 'epoch')}",
                "yes" if point == best else "",
            ]
            for point in self.points
        ]

    def _facts(self) -> Facts:
        best = self.best
        return [
            ("recommended", f"{self.depth_of(best)}, partition {best.partition}"),
            (
                "NLL",
                f"{with_error(best.nll, best.standard_error)} nats on {self.rows:,} "
                f"{self._example}s",
            ),
            ("95 % condition number", significant(best.condition_number)),
            ("tried", f"{', '.join(self.partitions)}, up to {max(p.depth for p in self.points)}"),
        ]


def _of_theory(linear: LinearPart) -> str:
    text = (
        f"The correlations alone are a linear map of condition number "
        f"{significant(linear.condition_number)}: {count(linear.couplings, 'linear coupling')} of "
        f"halves, the worst of condition number {significant(linear.coupling_condition_number)}"
    )
    if linear.lower_bound is None:
        return f"{text}. There is no lower bound for an odd number of columns."
    least = significant(linear.lower_bound)
    return f"{text}. As many with one scale each cannot all be below {least}, whatever they are."


def _of_modes(modes: Modes) -> str:
    low, high = (f"{share:.0%}" for share in modes.shares)
    text = (
        f"Two groups of rows, {low} and {high}, are {significant(modes.distance)} apart, with at "
        f"most {modes.between:.1%} of the rows between. A flow that has no more there needs "
        f"a Lipschitz constant of {significant(modes.lipschitz)}, latent to data"
    )
    measured = (
        f"measured, a layer of the recommended flow has at most "
        f"{significant(modes.layer_lipschitz)} and the whole flow "
        f"{significant(modes.flow_lipschitz)}"
    )
    if modes.layers is None:
        return f"{text}; {measured}, so it has more between them, or is steeper elsewhere."
    return f"{text}: at least {modes.layers} of its layers ({measured})."


def pays(deeper: DepthPoint, nats: float) -> bool:
    """Returns whether a flow gains more than `nats` over that of half the depth, on average."""
    return (deeper.gain or 0.0) > nats


def depth_chart(curve: DepthCurve) -> Chart:
    """Returns the chart of likelihood and conditioning against depth, for each partition."""
    likelihood, condition = [], []
    for partition in curve.partitions:
        flows, tone = curve.of(partition), TONES.get(partition, STRETCH)
        depths = [point.depth for point in flows]
        errors = [
            [point.nll + sign * (point.gain_error or 0.0) for point in flows]
            for sign in (-1, 0, 1)
        ]
        likelihood.append(band(partition, depths, errors, tone))
        numbers = [point.condition_number for point in flows]
        condition.append(line(partition, depths, numbers, tone))
    best = curve.best
    mark = {"kind": "points", "mark": "open diamond"}
    likelihood.append(line("recommended", [best.depth], [best.nll], MUTED, **mark))
    x = {"x": "steps in each level" if curve.images else "number of couplings", "x_log": True}
    return Chart(
        name="depth",
        title="Likelihood and conditioning against depth",
        caption="Left: the likelihood of held-out rows, lower is better. Bands are one standard "
        "error of the difference to half the depth. Right: what that costs in conditioning.",
        panels=[
            Panel(**x, y="held-out NLL, nats (standardized)", series=likelihood),
            Panel(**x, y="95 % condition number", y_log=True, series=condition),
        ],
        columns=2,
    )


def render_depth_curve(curve: DepthCurve) -> str:
    """Returns the page of a depth curve, one HTML document that makes no request."""
    head, *rows = curve.rows_of_table()
    sections = [
        Section("found", "How deep", [Text(text) for text in curve.describe()]),
        Section("chart", "Against depth", [Charts([depth_chart(curve)], wide=True)]),
        Section("table", "In numbers", [TextTable(head, rows)]),
        Section("partitions", "Partitions", [_partitions(curve)]),
        glossary_section(TERMS),
        Section("settings", "Settings", [FactTable(curve.model), Items(curve.notes)]),
    ]
    return render_page(
        Page(
            command="kappaflow depth",
            title=f"How deep a flow of {curve.data} has to be",
            sections=sections,
            intro=[
                Text(
                    INTRO.format(layers="steps a level", examples="images")
                    if curve.images
                    else INTRO.format(layers="couplings", examples="rows")
                )
            ],
            without_script="The tables do not.",
            files="report.json, next to this page, has all of its numbers.",
        )
    )


INTRO = (
    "For each partition flows of 2, 4, 8, ... {layers} are trained from the start, each with as "
    "many epochs, until twice the depth gains too little on {examples} that no training used."
)


def _partitions(curve: DepthCurve) -> FactTable:
    about = OF_IMAGES if curve.images else OF_TABLE
    return FactTable([(name, about.get(name, "")) for name in curve.partitions])
