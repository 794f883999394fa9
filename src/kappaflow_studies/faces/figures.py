"""The condition number of two trainings over their epochs."""

from kappaflow.report.figures.base import (
    DATA,
    SAMPLES,
    Figure,
    axis,
    empty_note,
    layout,
    line,
    log_axis,
    nothing_to_draw,
)
from kappaflow.report.numbers import drawable, significant, what_is_not_drawn
from kappaflow_studies.faces.content import FacesSize

QUANTILES = (
    ("condition_number_median", "median", "solid"),
    ("condition_number_p95", "95 %", "dash"),
)


def condition_over_training(size: FacesSize) -> Figure:
    """Returns the median and the 95 % quantile of both trainings of a size, on one log axis."""
    traces, series = [], []
    for run, name, colour in zip(
        size.runs, ("without padding", "with padding"), (DATA, SAMPLES), strict=True
    ):
        epochs = drawable(point["epoch"] for point in run.curve)
        for key, word, dash in QUANTILES:
            values = [point[key] for point in run.curve]
            series.append(values)
            traces.append(
                line(epochs, drawable(values, log=True), f"{name}, {word}", colour, dash=dash)
            )
    marks = {"annotations": [empty_note()]} if nothing_to_draw(traces) else {}
    ends = [
        significant(run.curve[-1]["condition_number_median"]) if run.curve else "not measured"
        for run in size.runs
    ]
    return Figure(
        name=f"condition-{size.size}",
        title=f"Condition number over training, {size.size} x {size.size}",
        alt="Median and 95 % quantile of the condition number over the epochs; the medians end at "
        f"{ends[0]} without padding and {ends[1]} with padding.",
        caption="Of the map from the standardised channels, the padding among them, to the "
        "latent, at a few validation faces, with the averaged weights of the epoch. Lower is "
        "better: each factor of ten costs a digit on the way back.",
        traces=traces,
        layout=layout(
            axis("epoch", nticks=8), log_axis("condition number (pure number)", series), **marks
        ),
        remark=what_is_not_drawn(series, log=True),
    )
