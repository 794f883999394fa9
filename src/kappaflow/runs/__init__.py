"""Run folders from end to end: what the commands do, as functions."""

from kappaflow.runs.factor import factor_file
from kappaflow.runs.fit import Model, RunSummary, fit_run
from kappaflow.runs.job import Source
from kappaflow.runs.rewrite import RewrittenRun, rewrite_run
from kappaflow.runs.stored import is_unfinished_run
from kappaflow.runs.use import examine_run, sample_run, score_run

__all__ = [
    "Model",
    "RewrittenRun",
    "RunSummary",
    "Source",
    "examine_run",
    "factor_file",
    "fit_run",
    "is_unfinished_run",
    "rewrite_run",
    "sample_run",
    "score_run",
]
