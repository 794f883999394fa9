"""`kappaflow doctor RUN --fix`: fixes a run and compares it before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kappaflow.cli.show import columns, number, print_json, tell

if TYPE_CHECKING:
    from kappaflow.diagnosis import Diagnosis
    from kappaflow.runs import FixedRun, Health

NLL = {
    "exact": "NLL of held-out rows, nats",
    "bound": "bound on the NLL of held-out rows, nats",
    "joint": "joint NLL of held-out rows and padding, nats",
}
FIGURES = (
    "condition_number_median",
    "condition_number_max",
    "round_trip_data_max",
    "round_trip_latent_max",
)


def fix(
    run: Path, fixes: Sequence[str], into: Path | None, epochs: int | None, *, json: bool
) -> int:
    """Fixes a run, prints the result, and returns the exit status."""
    from kappaflow.cli.show import words_shown
    from kappaflow.runs import fix_run

    given = {} if epochs is None else {"epochs": epochs}
    whole = run.resolve()
    out = whole.with_name(f"{whole.name}-fixed") if into is None else into
    visible = False if json else None
    with words_shown(visible=visible) as show:
        result = fix_run(run, out, fixes, progress=visible, show=show, **given)
    if json:
        print_json(result.to_json())
    else:
        _print(result, fixes)
    return 0 if (result.after or result.before).diagnosis.ok else 1


def _print(fixed_run: "FixedRun", fixes: Sequence[str]) -> None:
    """Prints what was done, the run before and after, and further fixes."""
    if fixed_run.after is None:
        why = _why_nothing(fixed_run.before.diagnosis, fixes)
        tell(f"{fixed_run.before.diagnosis.verdict}\n\nNothing changed: {why}.")
    else:
        tell("\n".join(fixed_run.done) + "\n")
        _compare(fixed_run.before, fixed_run.after)
        tell(f"\n{fixed_run.after.diagnosis.verdict}\n\nThe new run is {fixed_run.folder}")
    for name, reason in fixed_run.on_request.items():
        tell(f"Available on request, --fix {name}: {reason}")


def _why_nothing(diagnosis: "Diagnosis", fixes: Sequence[str]) -> str:
    """Returns why nothing changed in the run."""
    if fixes:
        return f"{' and '.join(fixes)} {'find' if fixes[1:] else 'finds'} nothing to change"
    severe = any(one.severity != "note" for one in diagnosis.findings)
    return "no automatic fix applies to these findings" if severe else "there is nothing to fix"


def _compare(before: "Health", after: "Health") -> None:
    """Prints the figures of two flows side by side."""
    codes = _codes(before.diagnosis), _codes(after.diagnosis)
    rows: list[tuple[str, ...]] = [("", "before", "after"), ("findings", *codes)]
    if before.nll is not None and after.nll is not None:
        each = (before, after)
        for what in dict.fromkeys(one.likelihood for one in each):
            values = [number(one.nll, ".4g") if one.likelihood == what else "" for one in each]
            rows.append((NLL[what], *values))
    for name in FIGURES:
        values = (one.diagnosis.measured[name] for one in (before, after))
        rows.append((name.replace("_", " "), *(f"{value:.3g}" for value in values)))
    columns(rows)


def _codes(diagnosis: "Diagnosis") -> str:
    return " ".join(dict.fromkeys(one.code for one in diagnosis.findings)) or "none"
