"""The README's figures are those that `make figures` makes, but for fonts and colours of another machine."""

import sys

import numpy as np
import pytest
from browser import find_browser, labelling_picture, picture
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
def run(tmp_path_factory, long_to_make):
    return prepared(open_run(OUTPUT_ROOT=str(tmp_path_factory.mktemp("figures")), DEVICE="cpu"))


def of_notebook(number, figure):
    def made(run, path):
        given = {"OUTPUT_ROOT": str(run.folder.parent), "DEVICE": "cpu"}
        workbook.run_plan(workbook.resolve_parameters(workbook.select_notebooks([number]), given))
        return run.folder / "figures" / f"{figure}.png"

    return made


MADE = {  # as `make figures` does
    "synthcom": lambda run, path: contact_sheet(run.root).savefig(path, dpi=80) or path,
    "explorer": lambda run, path: picture(Explorer.of(run), path),
    "labelling": lambda run, path: labelling_picture(Explorer.of(run), path),
    "gallery": of_notebook("06", "06_gallery_color"),
    "lambda": of_notebook("05", "05_lambda_curves"),
}


@pytest.mark.browser
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other fonts")
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on the PATH to draw with")
@pytest.mark.parametrize("name", MADE)
def test_figures_are_those_that_make_figures_makes(run, name, tmp_path):
    made = MADE[name](run, tmp_path / f"{name}.png")
    difference = np.abs(coarse(ROOT / "figures" / f"{name}.png") - coarse(made)).mean()
    print(f"{name}: {difference:.2f} of 255")
    assert difference < MOST


def test_another_query_is_noticed():
    pictures = [coarse(ROOT / "figures" / f"{name}.png") for name in MADE]
    assert all(np.abs(a - b).mean() > MOST for a in pictures for b in pictures if a is not b)
