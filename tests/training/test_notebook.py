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
    """One output has the bar and the curve, and one the result; there is no warning."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=600).execute()
    outputs = notebook.cells[0].outputs
    assert [one.output_type for one in outputs] == ["display_data", "execute_result"]
    progress, result = (one.data for one in outputs)
    assert progress["text/plain"].startswith("epoch 5 ━")
    assert "held out" in progress["text/plain"].splitlines()[1]
    assert result["text/plain"].startswith("FitResult(") and "<table" in result["text/html"]
