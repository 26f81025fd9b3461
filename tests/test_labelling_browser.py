"""Notebook 08 in a real browser: labelled by keyboard, one answer taken back, the page reloaded in the middle."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import papermill
import pytest
from PIL import Image

from rscir_lib import workbook
from rscir_lib.archive import read_archive
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features
from rscir_lib.labelling import read_journal
from rscir_lib.runs import ROOT, open_run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH to open the page with")


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


@pytest.fixture(scope="module")
def lab(run):
    """JupyterLab on loopback, and in it the notebook with the run's parameters."""
    folder = run.folder.parent.parent
    given = {"DATASET_ROOT": str(run.root), "OUTPUT_ROOT": str(run.folder.parent), "DEVICE": "cpu", "CHECK": ""}
    papermill.execute_notebook(
        str(workbook.NOTEBOOKS / "08_labelling.ipynb"), str(folder / "label.ipynb"), given, prepare_only=True
    )
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # every cell on the page, also those out of sight
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--ip=127.0.0.1", "--no-browser", "--allow-root"]
    command += [
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    own = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
           "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "PYTHONPATH": str(ROOT)}  # fmt: skip
    with subprocess.Popen(
        command, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/lab/tree/label.ipynb"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield browser
        browser.close()


def press(page, key: str) -> None:
    """A key, once there is a picture to answer for: a person looks first."""
    page.locator(".rscir-labeller img:visible").wait_for(timeout=60_000)
    page.keyboard.press(key)


def wait_for(page, count: int) -> None:
    page.locator(".rscir-labeller .status:visible", has_text=re.compile(f"^{count} answered")).wait_for(timeout=20_000)


def run_all(page, address: str):
    """Open the notebook, run all its cells, and return the part of the widget that takes the keys."""
    page.goto(address, timeout=120_000)  # which reloads it, too
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)  # or it asks for a kernel
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    stage = page.locator(".rscir-labeller .stage").last
    stage.wait_for(timeout=120_000)
    running = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.textContent.includes('*'))"
    page.wait_for_function(f"!{running}", timeout=60_000)  # the last cell takes the focus when it is done
    stage.click()
    return stage


def test_thirty_images_by_keyboard_one_undone_and_the_page_reloaded(run, lab, browser, tmp_path):
    journal = run.folder / "labels" / "ground" / "me.csv"
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    run_all(page, lab)
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

    run_all(page, lab)
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
    assert not errors
