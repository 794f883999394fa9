"""The parts of a table model other than its flow: made for an encoding, written and read."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from kappaflow.errors import FileError
from kappaflow.files import load_tensors
from kappaflow.mixed.columns import ColumnEncoding
from kappaflow.mixed.encoding import Encoding
from kappaflow.mixed.heads import CountHead, Head, LabelHead
from kappaflow.mixed.labels import Labels
from kappaflow.mixed.proposals import Proposals
from kappaflow.reading import parse_json, read_small
from kappaflow.storage import make_directory, read_tensors, write_bytes, write_tensors

COLUMNS, LABELS = "columns.json", "columns.safetensors"
VERSION = 1


def new_parts(encoding: Encoding) -> tuple[Labels, Proposals]:
    """Returns the labels and the proposals of a table, not fitted yet."""
    heads = [_head(column) for column in encoding.coded]
    labels = Labels(heads, len(encoding.context_features))
    return labels, Proposals(encoding.domains, labels.features)


def _head(column: ColumnEncoding) -> Head:
    if not column.is_count:
        return LabelHead(len(column.labels), has_gaps=None in column.labels)
    ends = column.grid is not None and column.grid.low == 0
    return CountHead(has_gaps=column.has_gaps, ends=ends)


def write_parts(folder: Path, encoding: Encoding, labels: Labels, proposals: Proposals) -> None:
    """Writes the parts to a folder, which is made if it is missing."""
    make_directory(folder)
    fields = {"version": VERSION, **encoding.model_dump(mode="json")}
    content = json.dumps(fields).encode()
    tensors = {
        f"{name}.{key}": value
        for name, part in (("labels", labels), ("proposals", proposals))
        for key, value in part.state_dict().items()
    }
    write_tensors(folder / LABELS, tensors, {COLUMNS: _digest(content)})
    write_bytes(folder / COLUMNS, content)


def read_parts(folder: Path) -> tuple[Encoding, Labels, Proposals]:
    """Returns the parts in a folder; FileError if they are missing or damaged."""
    if not (folder / COLUMNS).is_file():
        raise FileError(f"{folder / COLUMNS} is missing: {folder} holds no table model.")
    text = read_small(folder / COLUMNS)
    tensors, metadata = read_tensors(folder / LABELS)
    if metadata.get(COLUMNS) != _digest(text):
        raise FileError(f"{folder / LABELS} does not match {COLUMNS} next to it.")
    try:
        content = dict(parse_json(text))
        if content.pop("version", None) != VERSION:
            raise FileError(f"{folder / COLUMNS} is of another version of kappaflow.")
        encoding = Encoding.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise FileError(f"{folder / COLUMNS} is damaged: {first}.") from None
    except (TypeError, ValueError) as error:
        raise FileError(f"{folder / COLUMNS} is damaged: {error}.") from None
    labels, proposals = new_parts(encoding)
    for name, part in (("labels.", labels), ("proposals.", proposals)):
        own = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
        load_tensors(part, own, folder / LABELS)
    return encoding, labels.eval(), proposals


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
