"""`wrap`: PyTorch flows of any library as a `Flow` that can be measured."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.extensions import load_extensions
from kappaflow.flows import Flow, StandardNormal
from kappaflow.foreign.layers import ForeignLayer, Parts, event_shape_of, per_row, seeded

_LIBRARIES: dict[str, str] = {}  # modules of adapters, by the package that defines a flow's class
Adapter = Callable[[Any, Tensor | None, Tensor | None], Parts]


def wrap(flow: object, x: Tensor | None = None, context: Tensor | None = None) -> Flow:
    """Returns a flow of another library as a `Flow` that shares its parameters.

    Supports flows of zuko, nflows, normflows, FrEIA and torchflows, density estimators of sbi that
    are flows, (conditional) `TransformedDistribution` of torch and Pyro, kappaflow's bijections,
    any object with `encode(x) -> (z, log_det)` and `decode(z) -> (x, log_det)`, and a pair of such
    functions. `log_prob(x)` and `sample(n)` of an object become `own_log_prob` and `own_sample`.
    Networks without a base (FrEIA, functions) get a standard normal.

    Args:
        flow: The flow.
        x: Rows (B, *event), for flows that do not know the shape of their rows. Only the shape,
            dtype and device are used.
        context: Context rows (B, C) for a conditional flow; only shape, dtype and device are used.

    Returns:
        The flow, for `kappaflow.profile`, `spectrum`, `round_trip`, `doctor` and `fit`.
        `own_log_prob` and `own_sample` call the library.

    Raises:
        ArgumentError: The object is not supported, or the shape of its rows is not known.

    Example:
        >>> import kappaflow as kf
        >>> def double(x):
        ...     return 2 * x, torch.full((len(x),), 0.6931472)
        >>> def halve(z):
        ...     return z / 2, torch.full((len(z),), -0.6931472)
        >>> kf.wrap((double, halve), torch.zeros(1, 1)).log_prob(torch.zeros(1, 1))
        tensor([-0.2258])
    """
    flow = own_flow(flow)
    if isinstance(flow, Flow):
        return flow
    if isinstance(flow, Bijection):
        shape = event_shape_of(x, type(flow).__name__)
        return Flow(StandardNormal(flow.latent_shape(shape)), flow)
    adapter = _adapter(flow)
    for name, value in (("x", x), ("context", context)):
        if value is not None and not (isinstance(value, Tensor) and value.dim() >= 2):
            raise ArgumentError(f"'{name}' should be a tensor of rows, got {_describe(value)}.")
    parts = _parts_of(adapter, flow, x, context)
    width = 0 if context is None else context.shape[1]
    reference = next((t for t in (parts.like, x, context) if t is not None), None)
    return Wrapped(flow if parts.flow is None else parts.flow, parts, width, reference)


def register_library(package: str, adapter: str) -> None:
    """Registers the module that adapts the flows of a package, which is loaded when it is needed.

    Args:
        package: The package or module that defines the class of a flow or one of its bases.
        adapter: The module with `parts_of(flow, x, context)`, which returns the parts of a flow.
    """
    _LIBRARIES[package] = adapter


def wrap_to_fit(flow: object, features: int, context_features: int) -> Flow:
    """Returns a flow for rows of a table, which `kappaflow.fit` trains in place."""
    module = own_flow(flow)
    first = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    x = torch.zeros(2, features) if first is None else first.detach().new_zeros(2, features)
    context = x.new_zeros(2, context_features) if context_features else None
    return wrap(flow, x, context)


def own_flow(flow: object) -> object:
    """Returns the `Flow` inside an estimator or a distribution, or the object itself."""
    estimator = getattr(flow, "posterior_estimator", flow)  # of a posterior of sbi
    return getattr(estimator, "flow_to_examine", flow)


class Wrapped(Flow):
    """A flow of another library as a `Flow` that shares its parameters.

    `original` is a tuple with the wrapped object, and `source` the module with the parameters, or
    None. `bijection` has one layer for each layer of the library, from data to latent. `log_prob`
    and `sample` use these layers and `base`; `own_log_prob` and `own_sample` call the library.
    `kappaflow.fit` trains the log_prob of the library.
    Nothing assumes that both agree: `kappaflow.doctor` checks it.
    """

    def __init__(
        self, original: object, parts: Parts, context_features: int, reference: Tensor | None
    ) -> None:
        nn.Module.__init__(self)
        self.original = (original,)  # a tuple, so that a module is not registered a second time
        self.library = parts.library
        self.source = parts.module
        self.base = parts.base
        self.bijection = Chain(parts.layers)
        self.augment = None
        self._parts = parts
        self._by_library = False
        self._context_features = context_features
        # A flow without floating-point tensors has the dtype and device of this one.
        zero = torch.zeros(()) if reference is None else torch.zeros_like(reference).sum()
        self.register_buffer("_reference", zero, persistent=False)

    @property
    def joint_shape(self) -> tuple[int, ...]:
        return self._parts.layers[0].event_shape if self._parts.layers else self.base.event_shape

    @property
    def context_features(self) -> int:
        return self._context_features

    def _first_float_tensor(self) -> Tensor:
        """Returns a tensor with the dtype of the wrapped rows if any, else the first."""
        first = super()._first_float_tensor()
        state = (
            tensor
            for tensor in chain(self.parameters(), self.buffers())
            if tensor is not self._reference
        )
        return next((tensor for tensor in state if tensor.dtype == self._reference.dtype), first)

    def augmented_log_prob(self, joined: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log_prob, (B,), by the layers, or in `by_library` as the library computes it."""
        log_prob = self.own_log_prob(joined, context) if self._by_library else None
        return super().augmented_log_prob(joined, context) if log_prob is None else log_prob

    @contextmanager
    def by_library(self) -> Iterator[None]:
        """A context in which log_prob calls the library, as training does."""
        self._by_library = True
        try:
            yield
        finally:
            self._by_library = False

    def describe_source(self) -> dict[str, Any]:
        """Returns what a run folder stores about a wrapped flow: no file can rebuild such a flow.

        Raises:
            ArgumentError: The state of the flow holds something other than tensors.
        """
        state = self.state_dict()
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise ArgumentError(
                    f"'out' should be left out: the state of this flow of {self.library} holds "
                    f"{name!r}, a {type(value).__name__}, which a model file cannot hold."
                )
        (original,) = self.original
        shapes = sorted((name, [*value.shape]) for name, value in state.items())
        return {
            "library": self.library,
            "class": f"{type(original).__module__}.{type(original).__qualname__}",
            "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        }

    def own_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Returns log_prob (B,) as the library computes it, or None if it has no log_prob."""
        if self._parts.log_prob is None:
            return None
        values = self._parts.log_prob(x.clone(), context)
        return per_row(values, x, f"log_prob of {self.library}")

    def own_sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor | None] | None:
        """Returns samples of the library's own sampler, with the log_prob that it returns.

        The generator seeds torch's global generator for the call, which is restored afterwards.

        Returns:
            Samples (n, *event) and their log_prob (n,), or None for the latter if the library does
            not return it; None if the library has no sampler.
        """
        if self._parts.sample is None:
            return None
        with seeded(generator):
            x, log_prob = self._parts.sample(n, context)
        x = x.reshape(n, *self.event_shape)
        return x, None if log_prob is None else per_row(log_prob, x, f"sample of {self.library}")

    def extra_repr(self) -> str:
        return f"library={self.library!r}"

    def __reduce__(self) -> Any:
        raise ArgumentError(
            f"a wrapped flow cannot be copied: copy the flow of {self.library}, and wrap the copy."
        )


def _parts_of(adapter: Adapter, flow: object, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the parts of a flow, or raises `ArgumentError` if it is not a whole flow."""
    try:
        return adapter(flow, x, context)
    except KappaflowError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise ArgumentError(
            f"'flow' should be a whole flow, but reading this {type(flow).__name__} failed "
            f"({type(error).__name__}: {first})"
            + (": if it is conditional, pass its 'context'." if context is None else ".")
        ) from error


def _adapter(flow: object) -> Adapter:
    """Returns the adapter of the library that defines the flow's class."""
    load_extensions("libraries")
    for cls in type(flow).__mro__:
        for package, adapter in _LIBRARIES.items():
            if f"{cls.__module__}.".startswith(f"{package}."):
                return import_module(adapter).parts_of
    if isinstance(flow, tuple | list) or (hasattr(flow, "encode") and hasattr(flow, "decode")):
        return _parts_of_functions
    raise ArgumentError(
        f"'flow' should be a Flow, a flow of {', '.join(_LIBRARIES)}, an object with encode and "
        f"decode, or a pair of such functions, got {type(flow).__name__}."
    )


def _describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _parts_of_functions(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns one layer of two functions, with a standard normal as the base."""
    if isinstance(flow, tuple | list):
        if len(flow) != 2 or not all(map(callable, flow)):
            raise ArgumentError("'flow' should be two functions, encode and decode.")
        encode, decode, module = *flow, None
    else:
        encode, decode = flow.encode, flow.decode
        module = flow if isinstance(flow, nn.Module) else None
    shape = event_shape_of(x, "encode")

    def call(function: Any, value: Any, context: Tensor | None) -> Any:
        return function(value) if context is None else function(value, context)

    layer = ForeignLayer(
        type(flow).__name__ if not isinstance(flow, tuple | list) else "encode",
        lambda value, context: call(encode, value, context),
        lambda value, context: call(decode, value, context),
        (shape, shape),
        0 if context is None else context.shape[1],
    )
    log_prob, sample = _method(flow, "log_prob"), _method(flow, "sample")

    def draw(n: int, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        result = call(sample, n, context)
        return result if isinstance(result, tuple) else (result, None)

    return Parts(
        "functions",
        [layer],
        StandardNormal(shape),
        module,
        log_prob=None
        if log_prob is None
        else (lambda value, context: call(log_prob, value, context)),
        sample=None if sample is None else draw,
    )


def _method(flow: Any, name: str) -> Any:
    """Returns a method of an object, or None."""
    method = getattr(flow, name, None)
    return method if callable(method) else None
