"""The effect of a start that whitens the data, epoch by epoch."""

from statistics import mean

import torch

import kappaflow as kf
from benchmarks.magic import magic

SHOWN = (1, 2, 3, 5, 10, 20)


def whitening(*, seeds: int = 3, depth: int = 8, max_epochs: int = 20) -> None:
    """Train on MAGIC from the identity and from whitened data, and print validation NLLs.

    The couplings have fixed halves. Both trainings of a seed start with the same conditioners and
    the same order of rows. The couplings of the whitening are added to `depth`; the third row has
    the same number of nonlinear couplings instead.

    Parameters
    ----------
    seeds
        Number of trainings of each kind.
    depth
        Number of couplings of the flow.
    max_epochs
        Number of epochs.
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
