"""Whether one matrix is another one with its rows, or rows and columns, scaled."""

from collections.abc import Callable

import numpy as np

from kappaflow.theory.exact import Array, Number, Numbers


def rows_scaled(
    moved: Array, basis: Array, allowed: Callable[[Number], bool], numbers: Numbers
) -> bool:
    """Returns whether each row of `moved` is an allowed multiple of that of `basis`."""
    for new, old in zip(moved, basis, strict=True):
        if not old.any():
            if new.any():
                return False
            continue
        at = int(np.argmax(abs(old)))
        ratio = new[at] / old[at]
        if not allowed(ratio) or numbers.cleaned(new - ratio * old, new).any():
            return False
    return True


def scaled_alike(
    wanted: Array, given: Array, allowed: Callable[[Number], bool], numbers: Numbers
) -> bool:
    """Returns whether wanted = B given C with allowed diagonals, found in a walk."""
    if ((wanted != 0) != (given != 0)).any():
        return False
    rows: dict[int, Number] = {}
    columns: dict[int, Number] = {}
    for start in range(len(wanted)):
        if start in rows:
            continue
        rows[start], reached = 1, [start]
        while reached:
            i = reached.pop()
            for j in np.flatnonzero(given[i]):
                columns.setdefault(int(j), wanted[i, j] / given[i, j] / rows[i])
                for k in np.flatnonzero(given[:, j]):
                    if int(k) not in rows:
                        rows[int(k)] = wanted[k, j] / given[k, j] / columns[int(j)]
                        reached.append(int(k))
    return all(
        allowed(wanted[i, j] / given[i, j])
        and numbers.agree(wanted[i, j], rows[i] * given[i, j] * columns[j])
        for i, j in np.argwhere(given != 0).tolist()
    )
