"""docs/tour.ipynb runs as it stands, and its outputs are those of a run."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def kinds(notebook):
    """What each cell of code puts out; of the last ones how often does not matter."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{output.output_type for output in cell.outputs} for cell in cells]


def test_the_tour_runs(tmp_path, monkeypatch):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    stored, notebook = (nbformat.read(TOUR, 4) for _ in range(2))
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    assert kinds(notebook) == kinds(stored)
    assert {"stream"} in kinds(stored)
    assert any("image/png" in o.get("data", {}) for c in stored.cells for o in c.get("outputs", []))
    exported = {file.name for file in (tmp_path / "tour_files").iterdir()}
    assert {"export.json", "task_01_seed_42.safetensors"} < exported


def test_it_says_nothing_of_where_it_ran():
    text = TOUR.read_text()
    assert str(ROOT) not in text
    for folder in ("/root", "/home", "/tmp", "/Users", "site-packages"):
        assert folder not in text
