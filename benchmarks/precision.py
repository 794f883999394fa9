"""The cost of training in bfloat16, in likelihood."""

from statistics import mean

import torch

import kappaflow as kf
from benchmarks.magic import magic


def precision(*, seeds: int = 3, depth: int = 16, max_epochs: int = 20) -> None:
    """Train on MAGIC in full precision and in bfloat16, and print held-out NLLs.

    Both trainings of a seed start with the same weights and the same order of rows.

    Parameters
    ----------
    seeds
        Number of pairs of trainings.
    depth
        Number of couplings of the flow.
    max_epochs
        Number of epochs.
    """
    torch.set_num_threads(1)
    train, validation, test = magic()
    found: dict[str, list[float]] = {"full": [], "bf16": []}
    for seed in range(seeds):
        for kind, values in found.items():
            torch.manual_seed(seed)
            flow = kf.real_nvp(10, depth=depth, partition="random-half", seed=seed)
            kf.fit(
                flow,
                train,
                validation=validation,
                max_epochs=max_epochs,
                precision=kind,
                seed=seed,
                progress=False,
            )
            x = torch.as_tensor(test.values, dtype=flow.dtype)
            with torch.no_grad():
                values.append(-flow.log_prob(x).mean().item())
            print(f"seed {seed}  {kind}  {values[-1]:.4f} nats", flush=True)
    difference = mean(b - a for a, b in zip(found["full"], found["bf16"], strict=True))
    print(f"bf16 - full: {difference:+.4f} nats on average over {seeds} seeds")
