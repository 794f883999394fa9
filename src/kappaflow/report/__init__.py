"""Reports: what a training run yielded and whether to believe it, as JSON and as one HTML page.

`Report` holds plain numbers and knows nothing of HTML; `render` turns it into a page that needs no
network, `write_report` and `read_report` keep it in a folder. Nothing here trains, measures or
judges.
"""

from kappaflow.report.content import (
    About,
    Budget,
    FindingView,
    Latent,
    Likelihood,
    Marginal,
    PaddingView,
    Pairs,
    ProfileView,
    Quantiles,
    ReferenceView,
    Report,
    RowsView,
    RowView,
    Separation,
    Spread,
    Weighted,
)
from kappaflow.report.diagnosis_page import render_diagnosis, write_diagnosis
from kappaflow.report.factors import render_factors
from kappaflow.report.files import AnyReport, draw_again, read_report, read_report_on, write_report
from kappaflow.report.image_content import (
    ImageLikelihood,
    ImageReport,
    Neighbours,
    Picture,
    encoded,
)
from kappaflow.report.image_page import render_images
from kappaflow.report.page import render

__all__ = [
    "About",
    "AnyReport",
    "Budget",
    "FindingView",
    "ImageLikelihood",
    "ImageReport",
    "Latent",
    "Likelihood",
    "Marginal",
    "Neighbours",
    "PaddingView",
    "Pairs",
    "Picture",
    "ProfileView",
    "Quantiles",
    "ReferenceView",
    "Report",
    "RowView",
    "RowsView",
    "Separation",
    "Spread",
    "Weighted",
    "encoded",
    "draw_again",
    "read_report",
    "read_report_on",
    "render",
    "render_diagnosis",
    "render_factors",
    "render_images",
    "write_diagnosis",
    "write_report",
]
