"""Ideal couplings one after the other, with rotations or permutations between them, or nothing."""

import torch
from torch import Tensor

from kappaflow_studies.depth_conditioning.ideal_couplings import (
    after_ideal_coupling,
    expected_non_standardness,
    non_standardness,
    whitening_factor,
)
from kappaflow_studies.depth_conditioning.laws import Gaussian, random_rotation

ROTATIONS = "random rotations"
SCHEMES = (ROTATIONS, "random permutations", "binary digits", "one partition")


def whitened(
    scheme: str, features: int, condition_number: float, layers: int, seed: int
) -> list[dict[str, float | None]]:
    """Returns how far a Gaussian is from the standard normal behind each layer.

    Args:
        scheme: Among `SCHEMES`: what turns the features in front of each coupling, or which ones
            it keeps. "binary digits": layer by layer, those whose number has a zero in the first
            digit, the second and so on.
        features: n, even.
        condition_number: As for `Gaussian`.
        layers: How many.
        seed: Of the law and of what turns it.

    Returns:
        For 0 to `layers` layers: the loss in nats; for rotations the bound on its expectation
        given the spectrum in front of the layer; and that from the loss at the start alone.
    """
    law, half = Gaussian(features, condition_number, seed), features // 2
    generator = torch.Generator().manual_seed(seed)
    covariance, start = law.covariance, law.loss
    factor = whitening_factor(start, features, half)
    rows: list[dict[str, float | None]] = [
        {"layer": 0, "loss": start, "expected": start, "guaranteed": start}
    ]
    for layer in range(1, layers + 1):
        row: dict[str, float | None] = {"layer": layer}
        if scheme == ROTATIONS:
            turn = random_rotation(features, generator)
            covariance = turn @ covariance @ turn.T
            spectrum = torch.linalg.eigvalsh(covariance)
            row["expected"] = max(0.0, expected_non_standardness(spectrum, half).item())
            row["guaranteed"] = start * factor**layer
            kept = torch.arange(half)
        else:
            kept = _kept(scheme, features, layer, generator)
        covariance = _after_coupling(covariance, kept)
        row["loss"] = max(0.0, non_standardness(covariance).item())
        rows.append(row)
    return rows


def _kept(scheme: str, n: int, layer: int, generator: torch.Generator) -> Tensor:
    """Returns the features that a coupling keeps."""
    numbers = torch.arange(n)
    if scheme == "random permutations":
        return torch.randperm(n, generator=generator)[: n // 2]
    if scheme == "binary digits":
        digit = (layer - 1) % (n - 1).bit_length()
        return numbers[(numbers >> digit) % 2 == 0]
    return numbers[: n // 2] if layer % 2 else numbers[n // 2 :]


def _after_coupling(covariance: Tensor, kept: Tensor) -> Tensor:
    """Returns the covariance behind the ideal coupling, the features in their old order."""
    is_kept = torch.zeros(len(covariance), dtype=torch.bool)
    is_kept[kept] = True
    order = torch.cat((is_kept.nonzero()[:, 0], (~is_kept).nonzero()[:, 0]))
    found = torch.empty_like(covariance)
    found[order[:, None], order] = after_ideal_coupling(covariance[order][:, order], len(kept))
    return found
