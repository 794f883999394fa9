"""The page of what a condition number costs: likelihood against the budget that was asked for."""

from collections.abc import Sequence

from kappaflow.report.charts import Chart, Panel, Series, figures_of
from kappaflow.report.content import Part
from kappaflow.report.document import document
from kappaflow.report.numbers import (
    NOT_MEASURED,
    fixed,
    is_finite,
    significant,
    time_in_words,
    with_error,
)

LEAST = 1e-6  # nats: a smaller cost is called none
OVER = 1.1  # times the budget: above, it is called exceeded


class Budgeted(Part):
    """A flow and the condition number that was asked of it.

    Attributes:
        budget: What was asked for; None where nothing was.
        folder: Of its run.
        condition_number_p95: The 95 % quantile over held-out rows, from standardised columns on.
        condition_number_median: The median.
        rows: How many rows that is of.
        nll: Mean negative log-likelihood of all held-out rows, nats on standardised columns.
        standard_error: Of that.
        cost: By how much it is above that of the flow without a budget, row by row.
        cost_error: The standard error of the difference.
        epochs: Of the training.
        time_s: Of the training.
        failed: Why there is no flow; None where there is one.
    """

    budget: float | None
    folder: str
    condition_number_p95: float | None = None
    condition_number_median: float | None = None
    rows: int | None = None
    nll: float | None = None
    standard_error: float | None = None
    cost: float | None = None
    cost_error: float | None = None
    epochs: int | None = None
    time_s: float | None = None
    failed: str | None = None

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return "none" if self.budget is None else f"{self.budget:g}"

    @property
    def cost_in_words(self) -> str:
        """What the budget costs, in nats a row."""
        if self.budget is None or self.cost is None:
            return NOT_MEASURED
        return "0" if abs(self.cost) < LEAST else with_error(self.cost, self.cost_error)


class TradeOff(Part):
    """What budgets cost on one table.

    Attributes:
        data: The table.
        model: What was trained, (label, value).
        flows: One for each budget, the smallest first, and last the one without.
        notes: What is to be known of the data.
    """

    data: str
    model: list[tuple[str, str]]
    flows: list[Budgeted]
    notes: list[str]


def render_trade_off(report: TradeOff) -> str:
    """Returns the page of a trade-off.

    Args:
        report: Its numbers.

    Returns:
        One HTML document that makes no request.
    """
    chart = trade_off_chart(report)
    return document(
        "tradeoff.html.jinja",
        {chart.name: figures_of(chart)},
        report=report,
        chart=chart,
        found=found_in_words(report),
        time=time_in_words(sum(flow.time_s or 0.0 for flow in report.flows)),
    )


def trade_off_chart(report: TradeOff) -> Chart:
    """Returns the curve: likelihood against the condition number that was measured."""
    there = [flow for flow in report.flows if flow.failed is None]
    asked = [flow for flow in there if flow.budget is not None]
    free = [flow for flow in there if flow.budget is None]
    likelihood = Panel(
        title="Likelihood",
        x="95 % condition number",
        y="held-out NLL, nats (standardised)",
        x_log=True,
        series=[
            *([_curve(asked, "with a budget", 0)] if asked else []),
            *([_curve(free, "without", 3).model_copy(update={"dash": "none"})] if free else []),
        ],
    )
    budgets = [flow.budget for flow in asked]
    measured = [flow.condition_number_p95 for flow in asked]
    kept = Panel(
        title="Budgets",
        x="budget",
        y="95 % condition number",
        x_log=True,
        y_log=True,
        series=[
            Series(name="measured", x=budgets, y=measured, tone=0),
            Series(name="as asked for", x=budgets, y=budgets, tone=7, dash="dot"),
        ],
    )
    said = "Likelihood: of held-out rows against the 95 % condition number over them, the band is "
    said += "one standard error of the mean over these rows."
    if asked:
        said += " Budgets: what was measured beside what was asked for; below the dotted line the "
        said += "flow did not need as much."
    return Chart(
        name="trade-off",
        title="What a condition number costs",
        caption=said,
        panels=[likelihood, kept] if asked else [likelihood],
        columns=2,
    )


def _curve(flows: Sequence[Budgeted], name: str, tone: int) -> Series:
    ordered = sorted(flows, key=lambda flow: flow.condition_number_p95 or 0.0)
    pairs = [(flow.nll, flow.standard_error or 0.0) for flow in ordered]
    return Series(
        name=name,
        x=[flow.condition_number_p95 for flow in ordered],
        y=[nll for nll, _ in pairs],
        low=[None if nll is None else nll - error for nll, error in pairs],
        high=[None if nll is None else nll + error for nll, error in pairs],
        tone=tone,
    )


def found_in_words(report: TradeOff) -> list[str]:
    """Returns what was found, a sentence or two each."""
    there = [flow for flow in report.flows if flow.failed is None]
    said = [f"Budget {flow.name}: {flow.failed}" for flow in report.flows if flow.failed]
    free = next((flow for flow in there if flow.budget is None), None)
    if free is not None:
        nll = with_error(free.nll, free.standard_error)
        said.append(
            "Left alone, the flow has a 95 % condition number of "
            f"{significant(free.condition_number_p95)}, and {nll} nats a held-out row."
        )
    for flow in there:
        if flow.budget is not None and is_finite(flow.condition_number_p95):
            said.append(_one_in_words(flow))
    return said


def _one_in_words(flow: Budgeted) -> str:
    p95 = flow.condition_number_p95 or 0.0
    over = p95 / (flow.budget or 1.0)
    kept = "kept" if over <= 1 else "kept within 10 %" if over <= OVER else "exceeded"
    words = f"A budget of {flow.name} is {kept}, with {significant(p95)} on held-out rows"
    if flow.cost is None or not is_finite(flow.cost):
        return f"{words}."
    if abs(flow.cost) < max(LEAST, 2 * (flow.cost_error or 0.0)):
        return f"{words}; what it costs is within two standard errors of nothing."
    if flow.cost < 0:
        return f"{words}; the likelihood is better by {with_error(-flow.cost, flow.cost_error)}."
    return f"{words}; it costs {with_error(flow.cost, flow.cost_error)} nats a row."


def trade_off_rows(report: TradeOff) -> list[list[str]]:
    """Returns the table in words, its names first."""
    head = ["budget", "95 % condition number", "held-out NLL", "cost", "time"]
    return [head, *(_words(flow) for flow in report.flows)]


def _words(flow: Budgeted) -> list[str]:
    if flow.failed is not None:
        return [flow.name, "none kept it", "", "", ""]
    return [
        flow.name,
        significant(flow.condition_number_p95),
        with_error(flow.nll, flow.standard_error),
        flow.cost_in_words,
        f"{fixed(flow.time_s, 0)} s",
    ]
