"""Small images and the check of messages that the tests of kappaflow.images share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kappaflow.errors import KappaflowError

Draw = Callable[..., Path]
Refused = Callable[..., AbstractContextManager[None]]


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Returns random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Returns a function that writes an image file, random unless pixels are given."""

    def write(name: str, pixels: NDArray[np.uint8] | None = None, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(name.encode())
        image = Image.fromarray(noise(6, 5, 3, seed=seed) if pixels is None else pixels)
        image.save(path, **options)  # pyright: ignore[reportArgumentType]
        return path

    return write


@pytest.fixture
def refused() -> Refused:
    """Returns a context in which an error of a kind is raised, one sentence with these words."""

    @contextmanager
    def context(kind: type[KappaflowError], *words: str) -> Iterator[None]:
        with pytest.raises(kind) as error:
            yield
        text = str(error.value)
        assert type(error.value) is kind
        assert "\n" not in text
        assert text.endswith(".")
        for word in words:
            assert word in text, text

    return context
