"""What a run on a table was trained on, and how, where its data is still what it was."""

from dataclasses import dataclass

from kappaflow.files import CONFIG, read_config
from kappaflow.runs.anew_table import TableRun
from kappaflow.runs.job import Source, Tables
from kappaflow.runs.stored import read_run
from kappaflow.training import Settings, checked_settings


@dataclass(frozen=True)
class Trainable:
    """What it takes to train a run on, or anew.

    Attributes:
        source: Where its rows come from.
        tables: The rows.
        settings: Of its training.
    """

    source: Source
    tables: Tables
    settings: Settings


def trainable(run: TableRun) -> Trainable | None:
    """Returns what it takes to train a run again, None where its rows are not in memory.

    They are there if its data is found as it was, and was not left on disk.
    """
    if run.tables is None or run.tables.in_file is not None:
        return None
    source, asked = read_run(run.folder).source, read_config(run.folder / CONFIG).run
    if source is None or asked is None:
        return None
    return Trainable(source, run.tables, checked_settings(**asked["training"]))
