"""A pretended CUDA device: tensors that compute on the CPU and report a CUDA device.

Operations that mix devices raise an error, as on a real one, and those that make the host wait for
the device are counted. The values are those of the CPU, so any code runs.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
META = torch.device("meta")  # the device that autograd sees, which needs no library of CUDA
make_tensor = torch.tensor
Generator = torch.Generator
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
WAITS = {  # the host needs a value, or the size of a result
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Pretended(Tensor):
    """A CPU tensor that reports a CUDA device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "Pretended":
        shape = torch.empty_strided(
            values.size(), values.stride(), dtype=values.dtype, device="meta"
        )
        result = Tensor._make_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            shape,
            False,  # noqa: FBT003
            dispatch_device=True,
            device_for_backend_keys=CUDA,
        )
        result.values = values
        return result

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return CUDA

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Pretended({self.values})"

    def tolist(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Pretended":
        if id(self) not in memo:
            memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)]._is_param = getattr(self, "_is_param", False)
        return memo[id(self)]

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return make_tensor(data, dtype=dtype or self.dtype).to(CUDA)

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return META
        raise RuntimeError(f"{func} left the pretended device.")


def _tensor(data: Any, *, device: Any = None, **settings: Any) -> Tensor:
    """Stands for `torch.tensor`, which copies to a device by a library of CUDA."""
    result = make_tensor(data, **settings)
    return result if device is None or torch.device(device).type == "cpu" else result.to(CUDA)


class _OfEachDevice(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Generator)


class _Generator(metaclass=_OfEachDevice):
    """Stands for `torch.Generator`, which knows no device without CUDA."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:  # noqa: ARG004
        return Generator()


class PretendedDevice(TorchDispatchMode):
    """A mode under which device="cuda" is the pretended device.

    `waits` counts, by operation, how often the host waited: for a value, for the size of a result,
    or for a copy from or to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._patches = [
            mock.patch("torch.Generator", _Generator),
            mock.patch("torch.tensor", _tensor),
            mock.patch("torch.cuda._lazy_init"),
            # Dual numbers of such tensors end the process; kappaflow has other derivatives.
            mock.patch("torch.autograd.forward_ad.make_dual", side_effect=RuntimeError),
            mock.patch("torch.cuda.device_count", return_value=1),
            mock.patch("torch.cuda.set_device"),
            mock.patch("torch.cuda.max_memory_allocated", return_value=0),
            mock.patch("torch.cuda.get_rng_state", side_effect=lambda *_: torch.get_rng_state()),
            mock.patch("torch.cuda.set_rng_state"),
        ]

    def __enter__(self) -> "PretendedDevice":
        torch.__future__.set_swap_module_params_on_conversion(True)
        for patch in self._patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        torch.__future__.set_swap_module_params_on_conversion(False)
        for patch in self._patches:
            patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return META
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        pretended = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
        to = kwargs.get("device")
        to = None if to is None else torch.device(to).type
        if func is aten.copy_.default:
            on_device = isinstance(args[0], Pretended)
            crosses = 0 < len(pretended) < 2
        else:
            on_device = bool(pretended) if to is None else to != "cpu"
            crosses = func is aten._to_copy.default and on_device != bool(pretended)
        if func in COPIES and on_device and kwargs.get("non_blocking"):
            crosses = False  # the host does not wait for this copy
        if func in INDEXING and any(
            isinstance(index, Tensor) and index.dim() and not isinstance(index, Pretended)
            for index in args[1]
        ):
            self._refuse_mixing(func, [args[0], *args[2:3]])
            self._count(f"{func} by an index of the host")
        elif func not in COPIES:
            self._refuse_mixing(func, tensors)
        if crosses:
            self._count(f"{func} to the {'device' if on_device else 'host'}")
        elif pretended and (func in WAITS or self._by_mask(func, args)):
            self._count(str(func))
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(tensor.values): tensor for tensor in pretended}
        plain_args, plain_kwargs = tree_map(_values, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if not on_device:
            return result

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return wrappers.get(id(value)) if id(value) in wrappers else Pretended(value)

        return tree_map(wrapped, result)

    def _count(self, what: str) -> None:
        own = [f for f in traceback.extract_stack() if "kappaflow" in Path(f.filename).parts]
        where = f", {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        self.waits[what.replace(".default", "") + where] += 1

    def _by_mask(self, func: Any, args: Any) -> bool:
        """Returns whether an operation indexes by a mask, whose number of hits the host needs."""
        return func in INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )

    def _refuse_mixing(self, func: Any, tensors: list[Tensor]) -> None:
        pretended = [t for t in tensors if isinstance(t, Pretended)]
        others = [t for t in tensors if not isinstance(t, Pretended) and t.dim()]
        if pretended and others:
            raise RuntimeError(
                f"{func} mixes devices: {[tuple(t.shape) for t in pretended]} on cuda, "
                f"{[tuple(t.shape) for t in others]} on the CPU"
            )


def _values(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, Pretended) else leaf
