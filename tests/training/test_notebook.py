"""Progress in a notebook, with a real kernel."""

import pytest

CELL = """
import warnings
warnings.simplefilter("always")
import torch, kappaflow as kf
x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, max_epochs=5)
"""


@pytest.mark.slow
def test_a_notebook_shows_the_progress_of_a_training():
    """The bar comes before the result; there is no warning."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=600).execute()
    outputs = notebook.cells[0].outputs
    *bar, result = outputs
    progress = "".join(output.text for output in bar)
    assert "held out" in progress and "Warning" not in progress
    assert result.data["text/plain"].startswith("FitResult(")
    assert "<table" in result.data["text/html"]
