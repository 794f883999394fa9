"""Flows as programs that run without kappaflow, for torch and ONNX.

functions   the functions of a flow as modules, with random rows for them and their metadata
formulas    functions of torch that ONNX lacks, by operations that it has
programs    programs of torch.export and ONNX: traced, written and loaded again
export      `export`, which compares each program with the flow
"""

from kappaflow.interop.exports.export import Exported, export

__all__ = ["Exported", "export"]
