"""The README's figures are those that `make figures` makes, but for fonts and colours of another machine."""

import sys

import numpy as np
import pytest
from browser import labelling_picture, picture
from contact_sheet import contact_sheet
from PIL import Image

from rscir_lib.apps.commands import workbook
from rscir_lib.apps.explorer import Explorer
from rscir_lib.apps.explorer.opening import prepared
from rscir_lib.runs import open_run
from rscir_lib.storage.project import ROOT

CELLS = 48  # a figure is compared by the means of as many rows and columns of cells
MOST = 3.0  # of 255: the mean difference of a cell; another query, encoder or layout differs by more than ten


def coarse(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX), float)


@pytest.fixture(scope="module")
def made(tmp_path_factory, long_to_make, chromium):
    """What `make figures` copies and draws, of a run of its own."""
    folder = tmp_path_factory.mktemp("figures")
    given = {"OUTPUT_ROOT": str(folder), "DEVICE": "cpu"}
    run = prepared(open_run(**given))
    plan = workbook.resolve_parameters(workbook.select_notebooks(["02", "05", "06"]), given)
    workbook.run_plan(plan)
    contact_sheet(run.root).savefig(folder / "synthcom.png", dpi=80)
    drawn = run.folder / "figures"
    return {
        "synthcom": folder / "synthcom.png", "gallery": drawn / "06_gallery_color.png",
        "lambda": drawn / "05_lambda_curves.png", "explorer": picture(Explorer.of(run), folder / "explorer.png"),
        "labelling": labelling_picture(Explorer.of(run), folder / "labelling.png"),
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other fonts")
@pytest.mark.parametrize("name", ["synthcom", "gallery", "lambda", "explorer", "labelling"])
def test_figures_are_those_that_make_figures_makes(made, name):
    difference = np.abs(coarse(ROOT / "figures" / f"{name}.png") - coarse(made[name])).mean()
    print(f"{name}: {difference:.2f} of 255")
    assert difference < MOST


def test_another_query_is_noticed():
    names = ["synthcom", "gallery", "lambda", "explorer", "labelling"]
    pictures = [coarse(ROOT / "figures" / f"{name}.png") for name in names]
    assert all(np.abs(a - b).mean() > MOST for a in pictures for b in pictures if a is not b)
