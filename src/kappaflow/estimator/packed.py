"""A flow as bytes: its model file, so that a pickled estimator holds plain data in its place."""

import tempfile
from pathlib import Path

from kappaflow.files import CONFIG, WEIGHTS, load, save
from kappaflow.flows import Flow

Packed = dict[str, bytes]


def packed(flow: Flow) -> Packed:
    """Returns the files of a saved flow by their names."""
    with tempfile.TemporaryDirectory() as folder:
        save(flow, folder)
        return {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def unpacked(files: Packed) -> Flow:
    """Returns the flow of such files; a damaged byte is an error, as in a model file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, WEIGHTS):
            (Path(folder) / name).write_bytes(files[name])
        return load(folder)
