"""Flows as programs that run without kappaflow, for torch and ONNX.

functions   the functions of a flow as modules, with random rows for them and their metadata
programs    programs of torch.export and ONNX: traced, written and loaded again
export      `export`, which compares each program with the flow
"""

from kappaflow.interop.exports.export import Exported, export
from kappaflow.interop.exports.functions import FUNCTIONS
from kappaflow.interop.exports.programs import NOTES, SUFFIXES, load_onnx, outputs

__all__ = ["FUNCTIONS", "NOTES", "SUFFIXES", "Exported", "export", "load_onnx", "outputs"]
