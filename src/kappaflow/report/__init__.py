"""Reports on a training run, its results and their reliability, as JSON and as an HTML page.

A `Report` holds a `Result`, which are all figures of a run, and what only the page of its kind of
data draws. `store_report` and `read_report` keep it in a folder, with the page made from it. A
page is a list of sections filled into one template. A chart is drawn by plotly on pages and by
matplotlib in files. Nothing here trains or measures.
"""

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
from kappaflow.report.diagnosis import render_diagnosis, write_diagnosis
from kappaflow.report.files import (
    AnyReport,
    draw_again,
    read_report,
    register_report,
    render,
    store_report,
)
from kappaflow.report.images import ImageCharts, ImageReport, Neighbors
from kappaflow.report.pictures import Picture, encoded
from kappaflow.report.result import (
    AddedPadding,
    Conditioning,
    HeldOut,
    Likelihood,
    Result,
    Separation,
    Weighted,
)
from kappaflow.report.tables import TableReport

__all__ = [
    "About",
    "AddedPadding",
    "AnyReport",
    "Conditioning",
    "Correlations",
    "HeldOut",
    "ImageCharts",
    "ImageReport",
    "Latent",
    "Likelihood",
    "Marginal",
    "Neighbors",
    "Pairs",
    "Picture",
    "Report",
    "Result",
    "ScoreDensities",
    "Separation",
    "TableCharts",
    "TableReport",
    "Weighted",
    "WorstRow",
    "WorstRows",
    "draw_again",
    "encoded",
    "read_report",
    "register_report",
    "render",
    "render_diagnosis",
    "store_report",
    "write_diagnosis",
]
