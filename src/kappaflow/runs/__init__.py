"""Run folders from end to end: the functions behind the commands.

`fit_run` is the path of `kappaflow fit`: a `TableConfig` or an `ImageConfig` loads the data
(`table_data.py`, `image_data.py`), `search_model` may choose a model,
`kappaflow.training.fit_split` trains, and `evaluate` makes report and metrics.
"""

from kappaflow.runs.diagnose import diagnose_run
from kappaflow.runs.factor import factor_file
from kappaflow.runs.fit import RunSummary, fit_run
from kappaflow.runs.fix import FixedRun, Health, fix_run
from kappaflow.runs.image_data import ImageConfig
from kappaflow.runs.model_search import ModelSearch, fit_auto
from kappaflow.runs.recipes import ModelConfig
from kappaflow.runs.rewrite import RewrittenRun, rewrite_run
from kappaflow.runs.samples import (
    check_image_path,
    sample_images,
    sample_run,
    write_images,
    write_samples,
)
from kappaflow.runs.scores import Written, score_run, write_scores
from kappaflow.runs.stored import (
    ImageResult,
    TableResult,
    is_image_run,
    is_unfinished_run,
)
from kappaflow.runs.table_data import TableConfig
from kappaflow.runs.user_code import diagnose_code, is_code

__all__ = [
    "FixedRun",
    "Health",
    "ImageConfig",
    "ImageResult",
    "ModelConfig",
    "ModelSearch",
    "RewrittenRun",
    "RunSummary",
    "TableConfig",
    "TableResult",
    "Written",
    "check_image_path",
    "diagnose_code",
    "diagnose_run",
    "factor_file",
    "fit_auto",
    "fit_run",
    "fix_run",
    "is_code",
    "is_image_run",
    "is_unfinished_run",
    "rewrite_run",
    "sample_images",
    "sample_run",
    "score_run",
    "write_images",
    "write_samples",
    "write_scores",
]
