"""The summary that `kappaflow fit` prints."""

from typing import TYPE_CHECKING

from kappaflow.cli.show import JOINT, measured_rows, number, say, table, tell

if TYPE_CHECKING:
    from kappaflow.runs import ImageResult, RunSummary, TableResult

WHAT = {
    "exact": "held-out NLL",
    "bound": "bound on the held-out NLL",
    "joint": "joint NLL of rows and padding",
}


def print_summary(summary: "RunSummary", against: str | None, *, json: bool) -> None:
    """Prints the result of a run, as a table for people or as JSON.

    Args:
        summary: The run.
        against: The condition on other rows that are compared with; None for none.
        json: Print JSON.
    """
    from kappaflow.runs import ImageResult

    result, out = summary.result, summary.folder
    if json:
        tell(result.model_dump_json(indent=2, exclude={"train_log_prob_quantiles"}))
        return
    if summary.was_finished:
        say(f"{out} was finished already; this is its stored result")
    samples = ""
    if isinstance(result, ImageResult):
        _print_images(result)
        samples = f"Samples are in {out / 'samples'}\n"
    else:
        _print_table(result, against)
    tell(f"\n{result.verdict}\n\n{samples}The report is {out / 'report.html'}")


def _print_table(result: "TableResult", against: str | None) -> None:
    """Prints the likelihood of rows, the conditioning and the separation of other rows."""
    error = f" +- {number(result.test_nll_standard_error, '.3f')} nats"
    what = WHAT[result.likelihood]
    rows = [
        (f"{what}, standardized columns", number(result.test_nll_standardized, ".3f") + error),
        *_weighted_rows(result),
        *(
            (f"  {name}", f"{number(value, '.3f')} nats")
            for name, value in result.test_nll_standardized_by_part.items()
        ),
        *_reference_rows(result),
        (f"{what}, units of the data", f"{number(result.test_nll, '.3f')} nats"),
        *measured_rows(result),
    ]
    if against is not None:
        auc = f"{number(result.auc, '.4f')} +- {number(result.auc_standard_error, '.4f')}"
        rows.append((f"AUC against {against}", auc))
    table(rows)
    if result.likelihood == "joint":
        tell(f"\n{JOINT}")


def _reference_rows(result: "TableResult") -> list[tuple[str, str]]:
    """Returns the likelihood of a Gaussian and of a mixture, and how the flow compares."""
    if result.likelihood == "joint":
        return []
    if not result.references:
        return [("  of a Gaussian", f"{number(result.gaussian_nll_standardized, '.3f')} nats")]
    rows = []
    for one in result.references:
        name = "of a linear-Gaussian regression" if one.conditional else "of a Gaussian"
        if one.kind != "Gaussian":
            count = f"{one.components} component{'s' if one.components > 1 else ''}"
            noise = "of one with noise of a" if one.conditional else "of a"
            name = f"{noise} Gaussian mixture ({count})"
        paired = f"{number(one.difference, '+.3f')} +- {number(one.standard_error, '.3f')}"
        value = f"{number(one.nll_standardized, '.3f')} nats (the flow: {paired})"
        rows.append((f"  {name}", value))
    return rows


def _weighted_rows(result: "TableResult") -> list[tuple[str, str]]:
    """Returns the likelihood by importance weights, where there is one."""
    if result.weighted_nll_standardized is None:
        return []
    error = number(result.weighted_monte_carlo_error, ".3f")
    value = f"{number(result.weighted_nll_standardized, '.3f')} nats, Monte Carlo error {error}"
    return [("  by importance weights", value)]


def _print_images(result: "ImageResult") -> None:
    """Prints the likelihood of images and the conditioning."""
    bits = number(result.test_bits_per_dimension, ".3f")
    bits_error = number(result.test_bits_per_dimension_standard_error, ".3f")
    nll_error = number(result.test_nll_standard_error, ".1f")
    nll = f"{number(result.test_nll, '.1f')} +- {nll_error} nats an image"
    if result.likelihood == "joint":
        table([("joint NLL of images and padding", nll), *measured_rows(result)])
        tell(f"\n{JOINT}")
    else:
        table([
            ("held-out bits per dimension", f"{bits} +- {bits_error}"),
            ("  each pixel on its own", number(result.independent_bits_per_dimension, ".3f")),
            ("held-out NLL", nll),
            *measured_rows(result),
        ])
