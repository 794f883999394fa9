"""Run folders from end to end: what the commands do, as functions."""

from kappaflow.runs.examine_code import examine_code, is_code
from kappaflow.runs.factor import factor_file
from kappaflow.runs.fit import RunSummary, fit_run
from kappaflow.runs.fit_images import ImageRunSummary, fit_image_run
from kappaflow.runs.fix import FixedRun, Health, fix_run
from kappaflow.runs.image_job import ImageSource
from kappaflow.runs.job import Source
from kappaflow.runs.model_search import ModelSearch, fit_auto
from kappaflow.runs.recipes import Model
from kappaflow.runs.rewrite import RewrittenRun, rewrite_run
from kappaflow.runs.stored import is_image_run, is_unfinished_run
from kappaflow.runs.use import examine_run, sample_run, score_run
from kappaflow.runs.use_images import examine_image_run, sample_image_run, score_image_run
from kappaflow.runs.use_in_parts import Written, write_samples, write_scores
from kappaflow.runs.write_images import check_image_path, write_images

__all__ = [
    "FixedRun",
    "Health",
    "ImageRunSummary",
    "ImageSource",
    "Model",
    "ModelSearch",
    "fit_auto",
    "RewrittenRun",
    "RunSummary",
    "Source",
    "Written",
    "check_image_path",
    "examine_code",
    "examine_image_run",
    "examine_run",
    "factor_file",
    "fit_image_run",
    "fit_run",
    "fix_run",
    "is_code",
    "is_image_run",
    "is_unfinished_run",
    "rewrite_run",
    "sample_image_run",
    "sample_run",
    "score_image_run",
    "score_run",
    "write_images",
    "write_samples",
    "write_scores",
]
