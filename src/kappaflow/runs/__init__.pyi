from .diagnose import diagnose_run
from .factor import factor_file
from .fit import RunSummary, fit_run
from .fix import FixedRun, Health, fix_run
from .image_data import ImageConfig
from .model_search import ModelSearch, fit_auto
from .page import write_report
from .recipes import ModelConfig
from .rewrite import RewrittenRun, rewrite_run
from .samples import (
    check_image_path,
    sample_images,
    sample_run,
    write_images,
    write_samples,
)
from .scores import Written, score_run, write_scores
from .stored import (
    is_image_run,
    is_unfinished_run,
)
from .table_data import TableConfig
from .user_code import diagnose_code, is_code

__all__ = [
    "FixedRun",
    "Health",
    "ImageConfig",
    "ModelConfig",
    "ModelSearch",
    "RewrittenRun",
    "RunSummary",
    "TableConfig",
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
    "write_report",
    "write_samples",
    "write_scores",
]
