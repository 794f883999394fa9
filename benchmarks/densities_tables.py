"""The tables of the density comparison, with the same split for all flows."""

import numpy as np

from kappaflow.data import Table, drop_duplicate_rows, load_table, prepare, split

SIDE = 4  # side of a patch, in pixels
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
TABLES = {
    "magic": "events of a gamma-ray telescope, which are shipped",
    "patches": "patches of 4 x 4 gray pixels of four photographs that scikit-image brings, noise "
    "added within a gray value, less their mean, the last pixel left out as in BSDS300",
    "bananas": "pairs of features bent into bananas, all turned by one rotation: a density in "
    "closed form, whose entropy is {entropy:.3f} nats before columns are standardized",
}
BANANAS, FEATURES = 20_000, 8


def parts_of(name: str) -> tuple[Table, Table, Table]:
    """Returns training, validation and test rows, without repeated rows."""
    source = {"magic": lambda: "magic", "patches": patches, "bananas": _bananas}[name]()
    table, _ = drop_duplicate_rows(load_table(source))
    table, _ = prepare(table)
    train, validation, test = split(table, fractions=(0.8, 0.1, 0.1), seed=0)
    return train, validation, test


def entropy_of_bananas() -> float:
    """Returns the entropy of the bananas in nats: that of independent standard normals."""
    return 0.5 * FEATURES * float(np.log(2 * np.pi * np.e))


def patches() -> np.ndarray:
    """Returns patches that do not overlap, with noise within the gray value of each number."""
    from skimage import data
    from skimage.color import rgb2gray

    rows = []
    for name in PHOTOGRAPHS:
        gray = np.round(255 * rgb2gray(getattr(data, name)()))
        height, width = (size // SIDE for size in gray.shape)
        blocks = gray[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE)
        rows.append(blocks.transpose(0, 2, 1, 3).reshape(-1, SIDE * SIDE))
    whole = np.concatenate(rows)
    whole += np.random.default_rng(0).uniform(0, 1, whole.shape)
    return ((whole - whole.mean(1, keepdims=True)) / 256)[:, :-1]


def _bananas() -> np.ndarray:
    import torch

    from kappaflow_studies.data import bananas

    return bananas(BANANAS, FEATURES, torch.Generator().manual_seed(0))[0].numpy()
