"""Notebooks run with parameters, and what comes of them."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd

from rscir_lib.apps.commands import workbook
from rscir_lib.runs import paths as runs

LAMBDAS = [0.0, 0.4, 0.8]


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return code_cells_of(nbformat.read(path, as_version=4))


def code_cells_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(number: str, change: Callable = lambda notebook: notebook, **given: object) -> Path:
    """The run folder of one executed notebook."""
    ((notebook, parameters),) = workbook.resolve_parameters(workbook.select_notebooks([number]), given).items()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / notebook.name
        nbformat.write(change(nbformat.read(notebook, as_version=4)), copy)
        workbook.run_notebook(copy, parameters, timeout=600)
    return runs.run_of(parameters)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / f"{name}.csv").set_index(["method", "lambda"])
