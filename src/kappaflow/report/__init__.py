"""Reports on a training run, its results and their reliability, as JSON and as an HTML page.

`Report` and `ImageReport` hold plain numbers and text; `store_report` and `read_report` keep them
in a folder, with the page made from them. A page is a list of sections filled into one template. A
chart is drawn by plotly on pages and by matplotlib in files. Nothing here trains or measures.
"""

from kappaflow.report.content import (
    About,
    Budget,
    Correlations,
    Latent,
    Likelihood,
    Marginal,
    PaddingView,
    Pairs,
    Report,
    RowsView,
    RowView,
    Separation,
    Weighted,
)
from kappaflow.report.diagnosis import render_diagnosis, write_diagnosis
from kappaflow.report.files import AnyReport, draw_again, read_report, read_report_on, store_report
from kappaflow.report.images import ImageLikelihood, ImageReport, Neighbors, render_images
from kappaflow.report.pictures import Picture, encoded
from kappaflow.report.tables import render

__all__ = [
    "About",
    "AnyReport",
    "Budget",
    "Correlations",
    "ImageLikelihood",
    "ImageReport",
    "Latent",
    "Likelihood",
    "Marginal",
    "Neighbors",
    "PaddingView",
    "Pairs",
    "Picture",
    "Report",
    "RowView",
    "RowsView",
    "Separation",
    "Weighted",
    "encoded",
    "draw_again",
    "read_report",
    "read_report_on",
    "render",
    "render_diagnosis",
    "render_images",
    "write_diagnosis",
    "store_report",
]
