"""`kappaflow rewrite`."""

from pathlib import Path
from typing import TYPE_CHECKING

from kappaflow.cli.parameters import Count, FirstPart, Integer, Json
from kappaflow.cli.show import note_unfinished, print_columns, print_json, print_text

if TYPE_CHECKING:
    from kappaflow.runs import RewrittenRun


def rewrite(
    run: Path,
    /,
    *,
    out: Path,
    partition: FirstPart = "half",
    couplings: Count = "auto",
    seed: Integer = 0,
    json: Json = False,
) -> None:
    """Rewrite a flow to use one fixed partition, without changing what it computes.

    For example:

    kappaflow rewrite runs/magic --out runs/half

    kappaflow rewrite runs/magic --out runs/few --couplings fewest

    Permutations, other partitions and linear layers become couplings; some merge with their
    neighbors. The new folder is a run like the old one. Its certificate.json says how equal the
    two flows are.

    Parameters
    ----------
    run
        The run folder, or any saved model.
    out
        The new folder.
    partition
        half, alternating, or how many features the first part has.
    couplings
        How many one linear map may take, or "fewest" for as few as work. auto: six if a search of
        a few seconds finds them, else at most 17 in closed form.
    seed
        Of searches, and of samples to compare on.
    """
    from kappaflow.runs import rewrite_run

    done = rewrite_run(
        run,
        out,
        partition=partition,
        couplings=None if couplings == "fewest" else couplings,
        seed=seed,
    )
    note_unfinished(run)
    if json:
        print_json(done.to_json())
    else:
        _print(done)


def _print(done: "RewrittenRun") -> None:
    """Prints the certificate for people."""
    certificate = done.certificate
    print_columns([
        ("couplings before", f"{certificate.couplings_before}"),
        ("permutations and linear layers before", f"{certificate.mixing_before}"),
        ("couplings after", f"{certificate.couplings_after}"),
        ("linear couplings that joined a neighbor", f"{certificate.joined}"),
        ("layers kept unchanged", ", ".join(certificate.left) or "none"),
    ])
    if certificate.replaced:
        print_text()
        print_columns([
            ("linear map", "couplings", "largest condition number", "residual"),
            *(
                (
                    linear.name,
                    str(linear.couplings),
                    f"{max(linear.condition_numbers, default=1.0):.3g}",
                    f"{linear.residual:.1e}",
                )
                for linear in certificate.replaced
            ),
        ])
    print_text()
    differences = certificate.differences.values()
    print_columns([
        ("largest difference", *certificate.differences),
        ("z", *(f"{difference.z:.1e}" for difference in differences)),
        ("log_det, nats", *(f"{difference.log_det:.1e}" for difference in differences)),
        ("log_prob, nats", *(f"{difference.log_prob:.1e}" for difference in differences)),
    ])
    print_text(
        f"\nCompared on {certificate.points:,} {done.points}.\nThe new run is {done.folder}"
    )
