"""What a start that whitens the data is worth, epoch by epoch."""

from statistics import mean

import torch

import kappaflow as kf
from benchmarks.magic import magic

SHOWN = (1, 2, 3, 5, 10, 20)


def whitening(*, seeds: int = 3, depth: int = 8, max_epochs: int = 20) -> None:
    """Train on MAGIC from the identity and from whitened data, and print validation NLLs.

    Fixed halves; both trainings of a seed begin with the same conditioners and see the same rows
    in the same order. The couplings of the whitening come on top of `depth`; the third row has
    as many nonlinear ones instead.

    Parameters
    ----------
    seeds
        How many trainings of each kind.
    depth
        Couplings of the flow.
    max_epochs
        Passes over the training rows.
    """
    torch.set_num_threads(1)
    train, validation, _ = magic()
    kinds = {
        "identity": {"depth": depth},
        "whiten": {"depth": depth, "start": "whiten"},
        "identity, 6 couplings more": {"depth": depth + 6},
    }
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        for kind, arguments in kinds.items():
            torch.manual_seed(seed)
            flow = kf.real_nvp(10, seed=seed, **arguments)  # pyright: ignore[reportArgumentType]
            result = kf.fit(
                flow,
                train,
                validation=validation,
                max_epochs=max_epochs,
                seed=seed,
                progress=False,
            )
            found[kind].append([line["validation_nll"] for line in result.history])
            print(f"seed {seed}  {kind:<28} {found[kind][-1][-1]:.4f} nats", flush=True)
    shown = [epoch for epoch in SHOWN if epoch <= max_epochs]
    print("validation NLL after epoch " + "".join(f"{epoch:>9}" for epoch in shown))
    for kind, histories in found.items():
        means = [mean(history[epoch - 1] for history in histories) for epoch in shown]
        print(f"{kind:<27}" + "".join(f"{value:9.3f}" for value in means))
