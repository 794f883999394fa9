"""The MAGIC table for benchmarks that train on it."""

from kappaflow.data import Table, load_table, prepare, split


def magic() -> tuple[Table, Table, Table]:
    """Returns training, validation and test rows, always the same."""
    table, _ = prepare(load_table("magic"))
    train, validation, test = split(table, fractions=(0.8, 0.1, 0.1), seed=0)
    return train, validation, test
