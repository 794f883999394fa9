"""`kappaflow prune`."""

from pathlib import Path

from kappaflow.cli.parameters import Integer, Json, Quiet
from kappaflow.cli.show import note_unfinished, print_columns, print_json, print_text


def prune(
    run: Path,
    /,
    *,
    out: Path,
    nats: float = 0.02,
    epochs: Integer | None = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Remove the layers of a flow that it hardly needs.

    For example:

    kappaflow prune runs/magic --out runs/shallow

    kappaflow prune runs/magic --out runs/shallow --nats 0.1

    Layers become the identity, those first without which the flow loses the least, and the others
    are trained further, as long as the loss stays small. The new folder is a run like the old one,
    with a report; its pruned.json says what was removed and what that cost.

    Parameters
    ----------
    run
        The run folder.
    out
        The new folder.
    nats
        The largest loss on validation rows, in nats per row.
    epochs
        Maximum number of epochs of each training, about log2(layers) of them. Default: a third of
        those of kappaflow fit.
    """
    from kappaflow.runs import prune_run
    from kappaflow.summary import facts_of

    done = prune_run(run, out, nats=nats, max_epochs=epochs, progress=False if quiet else None)
    note_unfinished(run)
    if json:
        print_json(done.to_json())
        return
    pruned = done.pruned
    if done.folder is None:
        print_text(f"Nothing changed: any layer less costs more than {nats:g} nats.")
        return
    print_columns(facts_of(pruned))
    print_text(f"On test rows the loss is {done.test_loss:+.3f} ± {done.test_error:.3f} nats.")
    print_text(f"The new run is {done.folder}")
