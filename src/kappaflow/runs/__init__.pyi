from .candidate import Candidate, ModelSearch, candidates
from .depth_curve import depth_curve
from .derived_run import RewrittenRun, rewrite_run
from .diagnose import diagnose_run
from .factor import factor_file
from .fit import RunSummary, fit_run
from .fit_table import TableFit, fit_table
from .fix import FixedRun, Health, fix_run
from .impute import Imputed, impute_run
from .inference import sample_run, score_run, write_samples, write_scores
from .kinds import DataConfig, RunConfig, RunData, RunKind
from .mixed_data import MixedConfig
from .model_search import fit_auto
from .page import write_report
from .prune import PrunedRun, prune_run
from .recipes import ModelConfig
from .stored import is_unfinished_run
from .table_data import TableConfig
from .user_code import diagnose_code, is_code
from .written import Written

__all__ = [
    "Candidate",
    "DataConfig",
    "FixedRun",
    "Health",
    "Imputed",
    "MixedConfig",
    "ModelConfig",
    "ModelSearch",
    "PrunedRun",
    "RewrittenRun",
    "RunConfig",
    "RunData",
    "RunKind",
    "RunSummary",
    "TableConfig",
    "TableFit",
    "Written",
    "candidates",
    "depth_curve",
    "diagnose_code",
    "diagnose_run",
    "factor_file",
    "fit_auto",
    "fit_run",
    "fit_table",
    "fix_run",
    "impute_run",
    "is_code",
    "is_unfinished_run",
    "prune_run",
    "rewrite_run",
    "sample_run",
    "score_run",
    "write_report",
    "write_samples",
    "write_scores",
]
