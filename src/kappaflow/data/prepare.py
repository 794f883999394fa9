"""`prepare`, the call between a table and a flow: examine, then stop, repair or go on."""

from collections.abc import Collection

from kappaflow.data.examine import examine
from kappaflow.data.problem import Problem, listed
from kappaflow.data.raw import quoted
from kappaflow.data.repair import REPAIRS, Repair
from kappaflow.data.repair import repair as mend
from kappaflow.data.table import Table
from kappaflow.errors import DataError


def prepare(
    table: Table,
    *,
    repair: Repair | None = None,
    seed: int = 0,
    offered: Collection[Repair] = REPAIRS,
) -> tuple[Table, tuple[str, ...]]:
    """Returns a table that a flow can be fitted to, with what to tell the user about it.

    Args:
        table: The table as loaded.
        repair: None to stop at what is wrong, "drop" or "jitter" to go on as `repair` does.
        seed: Seed of the noise of "jitter".
        offered: The repairs that the caller has, and a refusal may name.

    Returns:
        The table, and one sentence for each repair and each warning.

    Raises:
        DataError: If the table has no density and no repair was asked for, or none helps.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import load_table
        >>> x = np.linspace(0.1, 9.7, 40)
        >>> table, notes = prepare(load_table(np.stack([x, np.sqrt(x), 2 * x], 1)), repair="drop")
        >>> table.columns, notes
        (('x0', 'x1'), ("left out column 'x2': it follows linearly from other columns",))
    """
    from kappaflow._checks import one_of

    if repair is not None:
        one_of("repair", repair, REPAIRS)
    problems = examine(table)
    stops = [problem for problem in problems if problem.severity == "stop"]
    notes: tuple[str, ...] = ()
    if stops:
        if repair is None:
            raise DataError(_refusal(table, stops, offered))
        table, notes = mend(table, problems, repair, seed=seed)
        problems = examine(table)
    return table, notes + tuple(problem.message for problem in problems)


def _refusal(table: Table, stops: list[Problem], offered: Collection[Repair]) -> str:
    """Returns the sentence of a table that stops: what is wrong, and which repairs can help."""
    text = f"no density can be fitted to {quoted([table.source])}: {listed(stops)}"
    if all(problem.code in {"too-few-rows", "no-numeric-column"} for problem in stops):
        return f"{text}."
    rows = any(problem.code in {"missing", "infinite"} for problem in stops)
    columns = any(problem.drop for problem in stops)
    what = " and ".join(["the rows"] * rows + ["the columns"] * columns)
    cures = [f"leave out {what} concerned"]
    if "drop" in offered:
        cures = [f"repair='drop' (--repair drop) leaves out {what} concerned"]
    if "jitter" in offered and columns and len(table) > len(table.columns):
        noise = "repair='jitter' (--repair jitter) adds a little noise to the columns instead"
        cures.append(noise)
    return f"{text}; {', '.join(cures)}."
