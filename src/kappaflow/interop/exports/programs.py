"""Programs of torch.export and ONNX: traced, written and loaded again."""

import importlib
import io
import json
import linecache
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.flows import Flow
from kappaflow.interop.exports.formulas import FORMULAS
from kappaflow.interop.exports.functions import INPUTS, OUTPUTS, FlowFunction, RandomRows
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
            with _Tracing(FORMULAS if kind == "onnx" else {}):
                self._traced = torch.export.export(
                    module, examples, dynamic_shapes=shapes, strict=False
                )
            for part in self._traced.graph_module.modules():
                if isinstance(part, GraphModule):
                    _simplify(part.graph, kind)
            self._onnx = self._converted(rows.z.dtype) if kind == "onnx" else None
        except KappaflowError as error:
            text = str(error)
            reason = text if text.startswith(f"'{name}'") else f"{name!r} of this flow: {text}"
            raise ArgumentError(reason) from None
        except Exception as error:  # the exporters raise exceptions of many kinds
            raise ArgumentError(
                f"{name!r} of this flow cannot be exported to {kind}: {_reason(error)}"
            ) from error

    def write(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Writes the program with its metadata."""
        inputs, results = metadata["inputs"][self.name], metadata["outputs"][self.name]
        details = {**metadata, "function": self.name, "inputs": inputs, "outputs": results}
        text = json.dumps(details, indent=2)
        try:
            if self._onnx is None:
                torch.export.save(self._traced, folder / self.file, extra_files={NOTES: text})
            else:
                self._onnx.model.metadata_props[ONNX_KEY] = text
                self._onnx.save(folder / self.file)
        except OSError:
            raise
        except Exception as error:  # torch 2.6 cannot write all that it can trace
            raise ArgumentError(
                f"{self.name!r} of this flow cannot be written by torch {torch.__version__}, "
                f"a newer one may write it: {_reason(error)}"
            ) from error

    def load(self, folder: Path) -> Call:
        """Returns the written program as a function of tensors."""
        try:
            if self._kind == "onnx":
                return _load_onnx(folder / self.file)
            program = torch.export.load(folder / self.file).module()
        except Exception as error:  # the runtimes raise exceptions of many kinds
            raise ArgumentError(
                f"{self.name!r} of this flow cannot be loaded again: {_reason(error)}"
            ) from error
        return lambda *inputs: outputs(program(*inputs))

    def _converted(self, dtype: torch.dtype) -> Any:
        traced: Any = self._traced
        count = len(traced.graph_signature.user_inputs)
        exact = {torch.ops.aten.scalar_tensor.default: _scalar_tensor}
        decompose = traced.run_decompositions
        skipped: list[bool] = []

        def decompose_if_needed(table: dict[Any, Any]) -> Any:
            skipped.append(not _is_decomposed_by(table, traced))
            return traced if skipped[-1] else decompose(table)

        def convert() -> Any:
            return torch.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                optimize=False,  # ONNX Runtime optimizes a program when it loads it
                input_names=[INPUTS[self.name], "context"][:count],
                output_names=list(OUTPUTS[self.name]),
                custom_translation_table=exact if dtype == torch.float64 else None,
            )

        traced.run_decompositions = decompose_if_needed  # it traces all again, which is slow
        try:
            program = convert()
        except Exception:
            if True not in skipped:
                raise
            traced.run_decompositions = decompose
            program = convert()
        _session(program.model_proto.SerializeToString())  # fails if it lacks an operation
        return program


class _Tracing(TorchFunctionMode):
    """Calls formulas in place of functions, and refuses `len(x)` where it fixes the rows."""

    def __init__(self, formulas: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._formulas = formulas

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func == Tensor.__len__ and args[0].dim() and isinstance(args[0].shape[0], torch.SymInt):
            raise ArgumentError(
                f"len(x) fixes the number of rows at {_calling_line()}. Use x.shape[0] instead."
            )
        return self._formulas.get(func, func)(*args, **(kwargs or {}))


def _calling_line() -> str:
    """Returns the place of the innermost line outside of torch and of this file, and its text."""
    skipped = (torch.__path__[0], __file__)
    for frame, number in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        if not file.startswith(skipped):
            return f"{file}:{number}, `{linecache.getline(file, number).strip()}`"
    return "an unknown line"


def _operations(traced: Any) -> set[Any]:
    """Returns the operations of a program, also of graphs in its graph."""
    graphs = [
        part.graph for part in traced.graph_module.modules() if isinstance(part, GraphModule)
    ]
    return {node.target for graph in graphs for node in graph.nodes if node.op == "call_function"}


def _is_decomposed_by(table: dict[Any, Any], traced: Any) -> bool:
    """Returns whether a decomposition changes a program: an operation, one in place, a graph."""
    return any(
        operation in table
        or isinstance(operation, torch._ops.HigherOrderOperator)
        or (isinstance(operation, torch._ops.OpOverload) and operation._schema.is_mutable)
        for operation in _operations(traced)
    )


def _simplify(graph: Any, kind: ExportFormat) -> None:
    """Removes operations that compute nothing: all later steps take time for each."""
    aten = torch.ops.aten
    conversions = {aten.to.dtype, aten.to.dtype_layout, aten.to.device}
    unneeded = {*conversions, aten.promote_types.default}  # torch 2.6 cannot load the second
    if kind == "onnx":
        unneeded |= {aten._assert_tensor_metadata.default, aten.detach_.default}
    for node in list(graph.nodes):
        node.meta.pop("stack_trace", None)  # it names files of this machine
        if node.target is aten.to.dtype and len(node.args) == 2:
            source, dtype = node.args
            is_output, is_other = (any(n.op == "output" for n in x.users) for x in (node, source))
            is_named = is_output and source.op == "call_function" and not is_other
            if source.meta["val"].dtype == dtype and (is_named or not is_output):
                node.replace_all_uses_with(source)
                if is_named:  # outputs are known by their names
                    node.name, source.name = source.name, node.name
        if kind == "onnx" and node.users and node.target in conversions:
            node.args, node.kwargs = node.args[:1], {"dtype": node.meta["val"].dtype}
            node.target = aten._to_copy.default
        if kind == "onnx" and node.target is aten.detach_.default:  # of a constant
            node.replace_all_uses_with(node.args[0])
        if node.target in unneeded and not node.users:
            graph.erase_node(node)


def _load_onnx(file: Path) -> Call:
    """Returns a program in ONNX as a function of tensors."""
    session = _session(file)
    names = [item.name for item in session.get_inputs()]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        arrays = [tensor.detach().numpy() for tensor in tensors]
        results = session.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(torch.from_numpy(array) for array in results)

    return run


def _session(source: Path | bytes) -> Any:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of each constant that it does not compute
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def outputs(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns the outputs of a program as a tuple."""
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _scalar_tensor(
    s: float, dtype: int = 1, layout: str = "", device: str = "", pin_memory: bool = False
) -> Any:
    """Returns a number as a tensor of ONNX; the exporter would round it to float32 first."""
    onnx, onnxscript = map(importlib.import_module, ("onnx", "onnxscript"))
    number = onnx.helper.make_tensor("number", max(dtype, 1), [], [s])
    return onnxscript.opset18.Constant(value=number)


def _reason(error: BaseException) -> str:
    """Returns the first sentence of the innermost exception."""
    while error.__cause__ is not None:
        error = error.__cause__
    if "Constraints violated" in str(error):
        return (
            "a layer fixes the number of rows. Use x.shape[0] without int(), range() or a loop "
            "over rows."
        )
    first = " ".join(str(error).split()).partition(". ")[0]
    return f"{type(error).__name__}: {first.rstrip('.')}."


@contextmanager
def quiet() -> Iterator[None]:
    """Hides warnings, logs and prints of the exporters; errors are raised as one sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    config: Any = importlib.import_module("torch.fx.config")
    traces = getattr(config, "do_not_emit_stack_traces", False)  # only in new versions
    config.do_not_emit_stack_traces = True
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        config.do_not_emit_stack_traces = traces
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
