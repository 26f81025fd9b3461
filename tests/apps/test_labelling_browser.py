"""Notebook 08 in a real browser: labelled by keyboard, one answer taken back, the page reloaded in the middle."""

import re

import numpy as np
import pytest
from PIL import Image

from rscir_lib.apps.labelling import read_journal
from rscir_lib.archive import read_archive
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features
from rscir_lib.runs import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over forty small images, with features."""
    folder = tmp_path_factory.mktemp("labelling")
    (folder / "plain").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "plain" / f"i{number:02d}.png")
    run = open_run(str(folder / "plain"), OUTPUT_ROOT=str(folder / "runs"), DEVICE="cpu")
    extract_features(read_archive(folder / "plain"), load_encoder("demo", device="cpu"), run.store)
    return run


def press(page, key: str) -> None:
    """A key, once there is a picture to answer for; and what comes next is waited for: a person looks."""
    page.locator(".rscir-labeller img:visible").wait_for(timeout=60_000)
    caption = page.locator(".rscir-labeller .caption").last
    said = caption.inner_text()
    page.keyboard.press(key)
    page.wait_for_function("([node, said]) => node.innerText !== said", arg=[caption.element_handle(), said])


def wait_for(page, count: int) -> None:
    page.locator(".rscir-labeller .status:visible", has_text=re.compile(f"^{count} answered")).wait_for(timeout=20_000)


def run_all(lab, page) -> None:
    """Run the notebook, and give the widget the keys."""
    lab.run_all(page)
    stage = page.locator(".rscir-labeller .stage").last
    stage.click()
    page.wait_for_timeout(1000)  # the notebook may still take the focus to its last cell
    stage.click()


def test_thirty_images_by_keyboard_one_undone_and_the_page_reloaded(run, lab, visit, tmp_path):
    journal = run.folder / "labels" / "ground" / "me.csv"
    given = {"DATASET_ROOT": str(run.root), "OUTPUT_ROOT": str(run.folder.parent), "DEVICE": "cpu", "CHECK": ""}
    page = visit(lab.address("08_labelling", **given), viewport={"width": 1200, "height": 1000})
    run_all(lab, page)
    first = page.locator(".rscir-labeller .caption").inner_text()
    for number in range(15):
        press(page, "123"[number % 3])
    wait_for(page, 15)
    page.keyboard.press("u")
    wait_for(page, 14)
    assert len(read_journal(journal)) == 14
    press(page, "0")
    press(page, "Enter")  # takes the proposal
    wait_for(page, 16)
    kept = journal.read_text()

    page.goto(page.url, timeout=120_000)
    run_all(lab, page)
    wait_for(page, 16)
    assert journal.read_text() == kept
    for _ in range(14):
        press(page, "2")
    wait_for(page, 30)
    said = read_journal(journal)
    assert len(said) == said["image"].nunique() == 30
    assert said["value"].tolist()[:14] == (["concrete", "grass", "sand"] * 5)[:14]
    assert said["value"][14] == ""
    assert said["value"][15] == said["proposed"][15]
    assert set(said["value"][16:]) == {"grass"}
    assert said["image"][0] in first
    page.screenshot(path=tmp_path / "labelling.png")
