"""The page of a trade-off: likelihood against condition budgets."""

from collections.abc import Sequence

from kappaflow.report.charts import DATA, MUTED, SQUEEZE, Chart, Panel, Series, band, line
from kappaflow.report.numbers import (
    NOT_MEASURED,
    count,
    format_time,
    is_finite,
    significant,
    with_error,
)
from kappaflow.report.page import Link, Section, Text, TextTable
from kappaflow.results import Part
from kappaflow_studies.engine.report import StudyFindings, render_findings

ZERO_COST = 1e-6  # nats below which a cost counts as 0
SLACK = 1.1  # a flow above this multiple of its budget exceeds it


class Budgeted(Part):
    """A flow trained with a condition budget, or without one."""

    budget: float | None
    folder: str
    # 95 % quantile over held-out rows, from the standardized columns on
    condition_number_p95: float | None = None
    condition_number_median: float | None = None
    rows: int | None = None  # number of these rows, which `condition_number_median` is over too
    # Mean negative log-likelihood of all held-out rows, nats on standardized columns
    nll: float | None = None
    standard_error: float | None = None
    # Mean difference from the NLL without a budget, paired by row, in nats
    cost: float | None = None
    cost_error: float | None = None
    epochs: int | None = None
    time_s: float | None = None
    failed: str | None = None  # why there is no flow; None if there is one

    @property
    def name(self) -> str:
        return "none" if self.budget is None else f"{self.budget:g}"

    @property
    def cost_text(self) -> str:
        if self.budget is None or self.cost is None:
            return NOT_MEASURED
        return "0" if abs(self.cost) < ZERO_COST else with_error(self.cost, self.cost_error)

    @property
    def cells(self) -> list[str]:
        """The row of the table, as text."""
        return [
            self.name,
            significant(self.condition_number_p95),
            significant(self.condition_number_median),
            with_error(self.nll, self.standard_error),
            self.cost_text,
            significant(self.epochs),
            NOT_MEASURED if self.time_s is None else f"{significant(self.time_s)} s",
        ]


class TradeOff(Part):
    """The costs of condition budgets on one table."""

    data: str
    model: list[tuple[str, str]]  # settings of the trainings, (label, value)
    # One for each budget, the smallest first, and the one without a budget last
    flows: list[Budgeted]
    notes: list[str]

    def describe(self) -> list[str]:
        """Returns the results as text, one or two sentences for each flow."""
        finished = [flow for flow in self.flows if flow.failed is None]
        texts = [f"Budget {flow.name}: {flow.failed}" for flow in self.flows if flow.failed]
        free = next((flow for flow in finished if flow.budget is None), None)
        if free is not None:
            nll = with_error(free.nll, free.standard_error)
            texts.append(
                "Without a budget, the flow has a 95 % condition number of "
                f"{significant(free.condition_number_p95)} and a held-out NLL of {nll} nats per "
                "row."
            )
        for flow in finished:
            if flow.budget is not None and is_finite(flow.condition_number_p95):
                texts.append(_describe_flow(flow))
        return texts

    def rows(self) -> list[list[str]]:
        """Returns the rows of the table, as text, with the header first."""
        return [list(COLUMNS), *(flow.cells for flow in self.flows)]


COLUMNS = (
    "budget", "95 % condition number", "median condition number", "held-out NLL",
    "cost (nats per row)", "epochs", "time",
)  # fmt: skip


def render_trade_off(report: TradeOff) -> str:
    """Returns the page of a trade-off."""
    head, *rows = report.rows()
    linked: list[list[str | Link | None]] = [
        [name if flow.failed else Link(name, f"{flow.folder}/report.html"), *cells]
        for flow, (name, *cells) in zip(report.flows, rows, strict=True)
    ]
    time = format_time(sum(flow.time_s or 0.0 for flow in report.flows))
    return render_findings(
        StudyFindings(found=report.describe(), differs=[], charts=[trade_off_chart(report)]),
        command="kappaflow tradeoff",
        title=f"What a condition number costs on {report.data}",
        intro=[Text(ABOUT), *(Text(note, style="quiet") for note in report.notes)],
        numbers="report.json",
        settings=(f"{count(len(report.flows), 'training')}, {time} in total.", report.model),
        sections=[Section("table", "In numbers", [TextTable(head, linked), Text(NOTE, "quiet")])],
    )


ABOUT = (
    "The same flow is trained once for each budget, with the same seed, on the same rows in the "
    "same order. A budget limits the 95 % quantile of the condition number over held-out rows, "
    "from the standardized columns on. The condition number is the largest factor by which the "
    "flow stretches a small step, divided by the smallest."
)
NOTE = (
    "NLL is on standardized columns; lower is better. ± is one standard error over held-out rows. "
    "The cost is the difference from the flow without a budget, row by row, so its error is "
    "smaller than that of either NLL. Each budget has one training, so the cost also contains the "
    "chance of a training. Each budget links to the report of its run."
)


def trade_off_chart(report: TradeOff) -> Chart:
    """Returns the likelihood against the measured condition number, and budgets against it."""
    finished = [flow for flow in report.flows if flow.failed is None]
    bound = [flow for flow in finished if flow.budget is not None]
    free = [flow for flow in finished if flow.budget is None]
    curves = [_curve(bound, "with a budget", DATA)] if bound else []
    curves += [_curve(free, "without a budget", SQUEEZE, kind="points")] if free else []
    likelihood = Panel(
        title="Likelihood",
        x="95 % condition number",
        y="held-out NLL, nats (standardized)",
        x_log=True,
        series=curves,
    )
    budgets = [flow.budget for flow in bound]
    kept = Panel(
        title="Budgets",
        x="budget",
        y="95 % condition number",
        x_log=True,
        y_log=True,
        series=[
            line("measured", budgets, [flow.condition_number_p95 for flow in bound], DATA),
            line("equal to the budget", budgets, budgets, MUTED, kind="dotted"),
        ],
    )
    caption = (
        "Likelihood: the NLL of held-out rows against their 95 % condition number. The band is "
        "one standard error of the mean over these rows."
    )
    if bound:
        caption += (
            " Budgets: the measured condition number against the budget. Below the dotted line, "
            "the flow did not use its whole budget."
        )
    return Chart(
        name="trade-off",
        title="What a condition number costs",
        caption=caption,
        panels=[likelihood, kept] if bound else [likelihood],
        columns=2,
    )


def _curve(flows: Sequence[Budgeted], name: str, tone: int, kind: str = "line") -> Series:
    """Returns the NLL over the condition number, with a band of one standard error."""
    ordered = sorted(flows, key=lambda flow: flow.condition_number_p95 or 0.0)
    errors = [(flow.nll, flow.standard_error or 0.0) for flow in ordered]
    quantiles = [
        [None if nll is None else nll + sign * error for nll, error in errors]
        for sign in (-1, 0, 1)
    ]
    conditions = [flow.condition_number_p95 for flow in ordered]
    return band(name, conditions, quantiles, tone, kind=kind)


def _describe_flow(flow: Budgeted) -> str:
    p95 = flow.condition_number_p95 or 0.0
    ratio = p95 / (flow.budget or 1.0)
    kept = "kept" if ratio <= 1 else "kept within 10 %" if ratio <= SLACK else "exceeded"
    start = f"The budget of {flow.name} is {kept}, with {significant(p95)} on held-out rows"
    if flow.cost is None or not is_finite(flow.cost):
        return f"{start}."
    if abs(flow.cost) < max(ZERO_COST, 2 * (flow.cost_error or 0.0)):
        return f"{start}; its cost is within two standard errors of zero."
    if flow.cost < 0:
        return f"{start}; the likelihood is better by {with_error(-flow.cost, flow.cost_error)}."
    return f"{start}; it costs {with_error(flow.cost, flow.cost_error)} nats per row."
