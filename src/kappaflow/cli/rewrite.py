"""`kappaflow rewrite`."""

from pathlib import Path

from kappaflow.cli.parameters import Count, FirstPart, Integer, Json
from kappaflow.cli.show import note_unfinished, print_json, print_text


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
        return
    print_text(f"{done.certificate}\n")
    print_text(f"The rows are {done.points}.\nThe new run is {done.folder}")
