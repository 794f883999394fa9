"""What a run says about its rows before it is trained."""

import numpy as np

from kappaflow.runs.table_data import TableConfig


def written(path, rows, header="a,b"):
    """Writes a header and rows of texts, and returns the path."""
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return str(path)


def numbers(rows, columns, seed=0):
    """Returns random numbers as rows of texts."""
    drawn = np.random.default_rng(seed).normal(size=(rows, columns))
    return [[f"{value:.4f}" for value in row] for row in drawn]


def test_few_rows_to_train_on_keep_the_verdict_from_being_green(tmp_path):
    """Fewer than 50 after the split; the sentence is a note as well."""
    few = TableConfig(written(tmp_path / "few.csv", numbers(60, 2))).load()
    assert few.warnings[0].startswith("48 rows are left to train on, fewer than 50")
    assert set(few.warnings) <= set(few.notes)
    enough = TableConfig(written(tmp_path / "enough.csv", numbers(70, 2))).load()
    assert enough.warnings == ()
