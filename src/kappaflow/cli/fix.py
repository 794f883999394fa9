"""`kappaflow doctor RUN --fix`: what was done, before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kappaflow.cli.printable import tell
from kappaflow.cli.show import columns, number, print_json

if TYPE_CHECKING:
    from kappaflow.diagnosis import Diagnosis
    from kappaflow.runs import CuredRun, Health

NLL = {
    "exact": "NLL of held-out points, nats",
    "bound": "bound on the NLL of held-out points, nats",
    "joint": "joint NLL of held-out points and padding, nats",
}
FIGURES = (
    "condition_number_median",
    "condition_number_max",
    "round_trip_data_max",
    "round_trip_latent_max",
)


def fix(
    run: Path, cures: Sequence[str], into: Path | None, epochs: int | None, *, json: bool
) -> int:
    """Cures a run, prints what came of it, and returns the exit status."""
    from kappaflow.cli.progress import words_shown
    from kappaflow.runs import cure_run

    given = {} if epochs is None else {"epochs": epochs}
    whole = run.resolve()
    out = whole.with_name(f"{whole.name}-fixed") if into is None else into
    visible = False if json else None
    with words_shown(visible=visible) as show:
        found = cure_run(run, out, cures, progress=visible, show=show, **given)
    if json:
        print_json(found.to_json())
    else:
        _print(found, cures)
    return 0 if (found.after or found.before).diagnosis.ok else 1


def _print(found: "CuredRun", cures: Sequence[str]) -> None:
    """Prints for people what was done, the run before and after, and what is left to do."""
    if found.after is None:
        why = _why_nothing(found.before.diagnosis, cures)
        tell(f"{found.before.diagnosis.verdict}\n\nNothing was done: {why}.")
    else:
        tell("\n".join(found.done) + "\n")
        _compare(found.before, found.after)
        tell(f"\n{found.after.diagnosis.verdict}\n\nThe new run is {found.folder}")
    for name, said in found.on_request.items():
        tell(f"On request, --fix {name}: {said}")


def _why_nothing(diagnosis: "Diagnosis", cures: Sequence[str]) -> str:
    """Returns why a run was left alone, with the cures that were named or without."""
    if cures:
        return f"{' and '.join(cures)} {'find' if cures[1:] else 'finds'} nothing to change"
    severe = any(one.severity != "note" for one in diagnosis.findings)
    return "no cure applies to what was found" if severe else "no cure is called for"


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
