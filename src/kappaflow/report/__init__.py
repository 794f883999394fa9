"""Reports on a training run, its results and their reliability, as JSON and as an HTML page.

A `Report` holds a `Result`, which are all figures of a run, and what only the page of its kind of
data draws. `store_report` and `read_report` keep it in a folder, with the page made from it. A
page is a list of sections filled into one template. A chart is drawn by plotly on pages and by
matplotlib in files. Nothing here trains or measures.
"""

from kappaflow.report.diagnosis import render_diagnosis, write_diagnosis

__all__ = ["render_diagnosis", "write_diagnosis"]
