"""Programs of torch.export and ONNX: traced, written and loaded again."""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.exports.functions import INPUTS, OUTPUTS, FlowFunction, RandomRows
from kappaflow.flows import Flow
from kappaflow.options import ExportFormat

SUFFIXES: dict[str, str] = {"torch": ".pt2", "onnx": ".onnx"}
NOTES = "kappaflow.json"  # the extra file of a .pt2 file that holds the metadata
ONNX_KEY = "kappaflow"  # the entry of metadata_props of an ONNX file that holds the metadata
EXAMPLES = 3  # rows that programs are traced with
MOST_ROWS = 2**40  # torch 2.6 needs a limit for some operations
Call = Callable[..., tuple[Tensor, ...]]


class Program:
    """A traced function of a flow."""

    def __init__(self, flow: Flow, name: str, rows: RandomRows, kind: ExportFormat) -> None:
        self.name, self.file, self._kind = name, name + SUFFIXES[kind], kind
        examples = tuple(tensor[:EXAMPLES].contiguous() for tensor in rows.of(name))
        batch = torch.export.Dim("batch", max=MOST_ROWS)
        shapes = tuple({0: batch} for _ in examples)
        try:
            module = FlowFunction(flow, name)
            self._traced = torch.export.export(
                module, examples, dynamic_shapes=shapes, strict=False
            )
            for part in self._traced.graph_module.modules():
                if not isinstance(part, GraphModule):
                    continue
                graph: Any = part.graph
                for node in list(graph.nodes):
                    node.meta.pop("stack_trace", None)  # it names files of this machine
                    if node.target is torch.ops.aten.promote_types.default and not node.users:
                        graph.erase_node(node)  # torch 2.6 cannot load it
            self._onnx = self._converted() if kind == "onnx" else None
        except KappaflowError as error:
            text = str(error)
            reason = text if text.startswith(f"'{name}'") else f"{name!r} of this flow: {text}"
            raise ArgumentError(reason) from None
        except Exception as error:  # the exporters raise exceptions of many kinds
            raise ArgumentError(
                f"{name!r} of this flow cannot be exported to {kind}: {_reason(error)}"
            ) from error

    def write(self, place: Path, about: dict[str, Any]) -> None:
        """Writes the program with its metadata."""
        given = about["inputs"][self.name], about["outputs"][self.name]
        own = {**about, "function": self.name, "inputs": given[0], "outputs": given[1]}
        text = json.dumps(own, indent=2)
        try:
            if self._onnx is None:
                torch.export.save(self._traced, place / self.file, extra_files={NOTES: text})
            else:
                self._onnx.model.metadata_props[ONNX_KEY] = text
                self._onnx.save(place / self.file)
        except OSError:
            raise
        except Exception as error:  # torch 2.6 cannot write all that it can trace
            raise ArgumentError(
                f"{self.name!r} of this flow cannot be written by torch {torch.__version__}, "
                f"a newer one may write it: {_reason(error)}"
            ) from error

    def load(self, place: Path) -> Call:
        """Returns the written program as a function of tensors."""
        if self._kind == "torch":
            program = torch.export.load(place / self.file).module()
            return lambda *given: outputs(program(*given))
        return load_onnx(place / self.file)[0]

    def _converted(self) -> Any:  # noqa: ANN401
        count = len(self._traced.graph_signature.user_inputs)
        program: Any = torch.onnx.export(
            self._traced.run_decompositions({
                torch.ops.aten.linalg_solve_triangular.default: _substituted,
                torch.ops.aten.log1p.default: _log1p,
                torch.ops.aten.expm1.default: _expm1,
            }),
            dynamo=True,
            verbose=False,
            input_names=[INPUTS[self.name], "context"][:count],
            output_names=list(OUTPUTS[self.name]),
        )
        _session(program.model_proto.SerializeToString())  # fails if it lacks an operation
        return program


def load_onnx(file: Path) -> tuple[Call, str]:
    """Returns a program in ONNX as a function of tensors, and its metadata."""
    session = _session(file)
    names = [one.name for one in session.get_inputs()]

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        arrays = [tensor.detach().numpy() for tensor in given]
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(torch.from_numpy(array) for array in found)

    return run, session.get_modelmeta().custom_metadata_map.get(ONNX_KEY, "")


def _session(source: Path | bytes) -> Any:  # noqa: ANN401
    runtime = importlib.import_module("onnxruntime")
    return runtime.InferenceSession(source, providers=["CPUExecutionProvider"])


def outputs(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns the outputs of a program as a tuple."""
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _log1p(x: Tensor) -> Tensor:
    """Returns log(1 + x) accurately for small x, without log1p, which ONNX lacks (Kahan)."""
    one = 1 + x
    rounded = one - 1
    safe = torch.where(rounded == 0, 1, rounded)
    return torch.where(rounded == 0, x, one.log() * (x / safe))


def _expm1(x: Tensor) -> Tensor:
    """Returns exp(x) - 1 accurately for small x, without expm1, which ONNX lacks (Kahan)."""
    one = x.exp()
    rounded = one - 1
    plain = (x.abs() > 0.5) | (rounded == 0)
    safe = torch.where(plain, 1, one.log())
    return torch.where(rounded == 0, x, torch.where(plain, rounded, rounded * (x / safe)))


def _substituted(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Returns `torch.linalg.solve_triangular(a, b)` by operations that ONNX has."""
    if not left:
        return _substituted(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    count = a.shape[-1]
    solved: Tensor | None = None
    for i in reversed(range(count)) if upper else range(count):
        row = b[..., i : i + 1, :]
        if solved is not None:
            row = (
                row - a[..., i : i + 1, i + 1 :] @ solved
                if upper
                else (row - a[..., i : i + 1, :i] @ solved)
            )
        if not unitriangular:
            row = row / a[..., i : i + 1, i : i + 1]
        parts = [row] if solved is None else [row, solved] if upper else [solved, row]
        solved = torch.cat(parts, -2)
    return b if solved is None else solved


def _reason(error: BaseException) -> str:
    """Returns the first sentence of the innermost exception."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = " ".join(str(error).split()).partition(". ")[0]
    return f"{type(error).__name__}: {first.rstrip('.')}."


@contextmanager
def quiet() -> Iterator[None]:
    """Hides warnings, logs and prints of the exporters; errors are raised as one sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(before)


def check_onnx() -> None:
    """Raises an error if a package that ONNX needs is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ArgumentError(
                f"'format' should be 'torch' without {name}: pip install 'kappaflow[onnx]' "
                "installs it."
            ) from None
