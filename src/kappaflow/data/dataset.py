"""`Dataset`, which a flow is fitted to, and the registry of kinds of data beyond tables."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from kappaflow.errors import ArgumentError
from kappaflow.extensions import load_extensions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kappaflow.data.batches import Batches


class Model(Protocol):
    """What a dataset reads of the flow that it is given to."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...
    @property
    def context_features(self) -> int: ...
    @property
    def domain(self) -> Any: ...
    @property
    def augment(self) -> Any: ...
    @property
    def dtype(self) -> "torch.dtype": ...
    @property
    def device(self) -> "torch.device": ...


@runtime_checkable
class Dataset(Protocol):
    """Rows, images or other examples that a flow is fitted to or scored on.

    `Table` and `MappedTable` (the training rows of a `TableOnDisk`) are the tables among them,
    `kappaflow.images.Images` the images. A class of yours becomes another one by these methods,
    and a `Kind` that you register says which paths hold such data.

    Example:
        >>> from kappaflow.data import load_table
        >>> isinstance(load_table("magic"), Dataset)
        True
    """

    @property
    def source(self) -> str:
        """Where the data came from, for messages."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences that keep the verdict on a fit to this data from being green."""
        ...

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def fingerprint(self) -> str:
        """Returns a SHA-256 in hex that changes whenever the data changes."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns plain values that a run folder stores about the data, such as its columns."""
        ...

    def batches(self, flow: Model) -> "Batches":
        """Returns the examples in batches, with the dtype and on the device of a flow.

        Raises:
            ArgumentError: The data does not have the shape or the contexts of the flow.
        """
        ...

    def check(self, flow: Model, *, held_out: bool = False) -> None:
        """Raises DataError for values that a flow cannot represent.

        `held_out` data decides when to stop, or is scored; a flow is not trained on it.
        """
        ...


class Kind(ABC):
    """A kind of data beyond tables: which sources hold it, and how they are loaded.

    `name` stands for several examples in messages, such as "images".
    """

    name: ClassVar[str]

    @abstractmethod
    def recognizes(self, source: object) -> bool:
        """Returns whether a source, such as a path or a name, is of this kind; reads little."""

    @abstractmethod
    def load(self, source: Any, flow: Model) -> Dataset:
        """Returns the data of a source that `recognizes` accepts, in the form of a flow."""

    @abstractmethod
    def split(self, data: Any, fractions: tuple[float, ...], seed: int) -> tuple[Any, ...]:
        """Returns parts of the data that share no example, copies included."""

    def models(self) -> dict[str, Callable[..., Any]]:
        """Returns the recipes of flows for such data, by name; the first is the default."""
        return {}

    def runs(self) -> Any:
        """Returns the `kappaflow.runs.RunKind`, what the commands need; None for `fit` alone."""
        return None

    def sets(self) -> tuple[Any, ...]:
        """Returns the built-in sets: name, description, package and citation of each."""
        return ()

    def fits(self, flow: Model) -> bool:
        """Returns whether only data of this kind can be given to a flow."""
        return False

    def from_tensors(
        self, x: "Tensor", context: "Tensor | None", flow: Model, source: str
    ) -> Dataset:
        """Returns examples in memory; called for a flow that `fits`."""
        raise NotImplementedError(f"{type(self).__name__} has no method 'from_tensors'.")


KINDS: dict[str, Kind] = {}
K = TypeVar("K", bound=Kind)


def register_kind(kind: type[K]) -> type[K]:
    """Returns a class of a kind of data, which is registered; a decorator."""
    taken = KINDS.get(kind.name)
    if taken is not None and type(taken).__qualname__ != kind.__qualname__:
        raise ArgumentError(f"'{kind.name}' is already the name of a kind of data.")
    KINDS[kind.name] = kind()
    return kind


def kinds() -> tuple[Kind, ...]:
    """Returns all kinds of data beyond tables."""
    load_extensions("datasets")
    return tuple(KINDS.values())


def kind_of(source: object) -> Kind | None:
    """Returns the kind of data that a source holds; None for tables, and for nothing."""
    return next((kind for kind in kinds() if kind.recognizes(source)), None)


def runs_of(kind: Kind) -> Any:
    """Returns the `RunKind` of a kind of data; an error if it has none."""
    runs = kind.runs()
    if runs is None:
        raise ArgumentError(
            f"'data' should not be {kind.name} here: their Kind has no method 'runs', which "
            "returns a kappaflow.runs.RunKind for reports, plots and commands."
        )
    return runs


def kind_for(flow: Model) -> Kind | None:
    """Returns the kind of data that a flow needs; None for a flow of tables."""
    return next((kind for kind in kinds() if kind.fits(flow)), None)
