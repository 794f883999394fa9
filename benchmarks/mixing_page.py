"""The section of the page of benchmarks on the forms of 1x1 convolutions."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown

HEAD = (
    "form",
    "parameters",
    "before, median",
    "before, max",
    "after, median",
    "after, max",
    "bounded",
    "whole flow before",
    "whole flow after",
    "test bits per dimension",
    "time of a step / plain",
)
UNBOUNDED = "no"


def mixing_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template of the section.

    Args:
        results: The content of the file of results.

    Returns:
        "table", the settings of the trainings, "seeds", and the settings of the times; None if
        nothing was measured.
    """
    lines = results["lines"]
    trainings = [line for line in lines if line["part"] == "training"]
    times = next((line for line in lines if line["part"] == "times"), None)
    return {
        "table": markdown(HEAD, _rows(trainings, times["forms"] if times else {})),
        "training": trainings[0] if trainings else None,
        "seeds": len({line["seed"] for line in trainings}),
        "times": times,
    }


def _rows(trainings: Sequence[Line], times: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each form."""
    trained = {form: same for (form,), same in grouped(trainings, ("form",)).items()}
    return [
        [form, *_learned(trained.get(form, []), bounded(form)), _ratio(times.get(form))]
        for form in dict.fromkeys([*trained, *times])
    ]


def bounded(form: str) -> str:
    """Returns the bound on the condition number of a convolution by construction, as text.

    Example:
        >>> bounded("LU"), bounded("SVD, bound 4"), bounded("orthogonal")
        ('no', 'at most 4', '1')
    """
    _, comma, bound = form.partition(", bound ")
    if comma:
        return f"at most {bound}"
    return "1" if form == "orthogonal" else UNBOUNDED


def _learned(same: Sequence[Line], bound: str) -> list[str]:
    """Returns the table cells from the trainings of a form."""
    if not same:
        return ["", "", "", "", "", bound, "", "", ""]
    return [
        f"{same[0]['parameters']:,}",
        *(
            _digits(over([line[when][what] for line in same]))
            for when in ("before", "after")
            for what, over in (("median", median), ("max", max))
        ),
        bound,
        *(_digits(median(line[when]["flow"] for line in same)) for when in ("before", "after")),
        _spread([line["test"] for line in same]),
    ]


def _digits(value: float) -> str:
    """Returns a condition number with three digits, because many are near 1."""
    return f"{value:.3g}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _ratio(figures: dict[str, float] | None) -> str:
    return f"{figures['to_plain']:.2f}" if figures else ""
