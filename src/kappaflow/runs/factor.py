"""`factor_file`: from a matrix in a file to couplings in a file, and a page about them."""

from collections.abc import Callable
from pathlib import Path

from kappaflow.data import load_matrix
from kappaflow.extensions import load_by_name
from kappaflow.factor import Factorization, factor_linear
from kappaflow.factor.factorization import save_couplings
from kappaflow.factor.strategies import Count
from kappaflow.options import FactorMethod
from kappaflow.report.files import check_output_path
from kappaflow.storage import write_bytes


def factor_file(
    source: str,
    *,
    couplings: Count = "auto",
    partition: str | int = "half",
    method: FactorMethod = "auto",
    max_time_s: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    report: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Factorization:
    """Factors the matrix of a file, and writes the requested files, each whole or not at all.

    The source is as for `kappaflow.data.load_matrix`; the factorization as for
    `kappaflow.factor_linear`. `out` is a safetensors file for the couplings. `report` is an HTML
    file; for it the map is factored again with other numbers of couplings. `say` receives the
    steps of the searches.

    Returns:
        The couplings.

    Raises:
        ArgumentError: The matrix cannot be factored, or an argument cannot be used.
        FileError: A file cannot be read, or written.
    """
    for name, path, suffix in (("out", out, ".safetensors"), ("report", report, ".html")):
        check_output_path(name, path, suffix)
    matrix = load_matrix(source)
    search = {"partition": partition, "seed": seed, "max_time_s": max_time_s, "progress": say}
    result = factor_linear(matrix, couplings=couplings, method=method, **search)
    if out is not None:
        save_couplings(result, out)
    if report is not None:
        count = len(result) if couplings == "auto" else couplings
        known = {count: result} if count and method == "auto" else {}
        name = "standard input" if source == "-" else Path(source).name
        page = load_by_name("factors_page")(result, matrix, name, known=known, **search)
        write_bytes(Path(report), page.encode())
    return result
