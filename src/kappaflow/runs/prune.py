"""`prune_run`: a run with the shallowest flow within a tolerance of that of another run."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kappaflow.depth import PrunedFlow, prune
from kappaflow.errors import ArgumentError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.options import option
from kappaflow.results import to_plain
from kappaflow.runs.derived_run import StoredRun, write_derived_run
from kappaflow.runs.mixed_data import MixedData
from kappaflow.runs.table_data import TableData
from kappaflow.storage import atomic_directory, write_bytes
from kappaflow.training import log_prob_of
from kappaflow.training.measure import mean, standard_error

PRUNED = "pruned.json"
LIMITS = ("max_epochs", "max_time_s", "patience", "cooldown")  # those of the old training


@dataclass(frozen=True)
class PrunedRun:
    """The result of pruning a run."""

    folder: Path | None  # the new run; None if no layer could go
    pruned: PrunedFlow  # the new flow, compared with the old one on validation rows
    test_loss: float  # mean difference in NLL on the held-out rows of the run, in nats
    test_error: float  # its standard error

    def to_json(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        pruned = self.pruned
        return to_plain({
            "run": None if self.folder is None else str(self.folder),
            "layers": pruned.kept,
            "removed": list(pruned.removed),
            "test_loss": self.test_loss,
            "test_error": self.test_error,
            "validation_loss": pruned.loss,
            "validation_error": pruned.standard_error,
            "time": pruned.time,
            "condition_numbers": list(pruned.condition_numbers),
            "trials": list(pruned.trials),
        })


def prune_run(
    folder: str | Path,
    out: str | Path,
    *,
    nats: float = 0.02,
    progress: bool | None = None,
    **settings: Any,
) -> PrunedRun:
    """Prunes the flow of a run, and writes the run of the new flow, with its report.

    The rows of the run train the flow and decide; its held-out rows say what that cost. The
    folder of the old run does not change. The other arguments are as for `kappaflow.prune`, with
    the settings of the training of the run as defaults.

    Returns:
        The new flow and what it costs. If no layer could go, nothing is written.

    Raises:
        ArgumentError: `out` exists, the data of the run is missing or is not a table in memory, or
            the flow has too few layers.
        FileError: A file cannot be read, or written.
    """
    old, new = Path(folder), Path(out)
    if os.path.lexists(new):
        raise ArgumentError(f"'out' should be a new folder, {new} exists already.")
    run, flow = StoredRun(old), load(old)
    data = run.data
    if not isinstance(data, TableData) or data.in_file is not None:
        raise ArgumentError(
            f"'run' should be a run on a table in memory whose data has not changed: pruning "
            f"trains on it, and that of {old} is missing, has changed, or is not such a table."
        )
    if isinstance(data, MixedData):
        raise ArgumentError(
            f"'run' should be a run without kinds of columns: pruning trains on complete rows of "
            f"numbers, and {old} has {option('kinds')}."
        )
    stored = (read_config(old / CONFIG).run or {})["training"]
    kept = {name: value for name, value in stored.items() if name not in LIMITS}
    kept |= settings
    pruned = prune(flow, data.trained_on, data.validation, nats=nats, progress=progress, **kept)
    rows = data.test.batches(flow)
    difference = log_prob_of(flow, rows) - log_prob_of(pruned.flow, rows)
    done = PrunedRun(
        new if pruned.removed else None,
        pruned,
        mean(difference, rows.weights),
        standard_error(difference, rows.weights),
    )
    if pruned.removed:
        how = f"from {old}, without {', '.join(pruned.removed)}"
        with atomic_directory(new) as temporary:
            write_derived_run(pruned.flow, run, temporary, how)
            text = json.dumps(done.to_json(), indent=2) + "\n"
            write_bytes(temporary / PRUNED, text.encode())
    return done
