"""Copies a picture of each notebook for docs/notebooks/index.md, after `make docs`."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
EXECUTED = DOCS / "_build" / "jupyter_execute" / "notebooks"
PICTURES = {  # which picture of the page, from 0
    "six-couplings": 0,
    "calibration": 0,
}
WIDTH = 560  # pixels, twice the width in the table


def pictures_of(name: str) -> list[bytes]:
    """Returns the pictures of an executed notebook, in their order."""
    cells = json.loads((EXECUTED / f"{name}.ipynb").read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    images = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(image) for image in images if image]


if __name__ == "__main__":
    for name, number in PICTURES.items():
        picture = Image.open(io.BytesIO(pictures_of(name)[number])).convert("RGB")
        picture.thumbnail((WIDTH, WIDTH))
        picture.quantize(64).save(DOCS / "images" / f"notebook-{name}.png", optimize=True)
