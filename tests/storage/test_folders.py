"""What lies below a folder, and whose it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from rscir_lib.apps.commands import training
from rscir_lib.apps.explorer.page import write_page
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.storage.folders import check_ours, files_below

WRITERS = {
    "page": lambda folder: write_page(SimpleNamespace(archive=()), folder),
    "train": lambda folder: training.train(np.zeros((1, 8, 8, 3), np.uint8), [["a"]], folder, training.Recipe(1)),
    "draw": lambda folder: draw_synthcom(folder, images_per_class=1, workers=1),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("file", ["index.html", "README.md", "thumbnails/0.js", "images/a.jpg", "patternnet.csv"])
def test_a_folder_of_somebody_elses_is_refused(tmp_path, writer, file):
    (tmp_path / "x" / file).parent.mkdir(parents=True)
    (tmp_path / "x" / file).write_text("theirs")
    (tmp_path / "x" / ".git").mkdir()
    with pytest.raises(ValueError, match=rf"x holds other things \({file.split('/')[0]}\) .*choose another folder"):
        WRITERS[writer](tmp_path / "x")
    assert list(files_below(tmp_path / "x")) == [file]
    assert (tmp_path / "x" / file).read_text() == "theirs"


def test_ours_empty_and_absent_folders_are_taken(tmp_path):
    check_ours(tmp_path / "absent", "mark")
    (tmp_path / ".lock").touch()
    check_ours(tmp_path, "mark")
    (tmp_path / "mark").touch()
    (tmp_path / "more").touch()
    check_ours(tmp_path, "mark")


def test_files_below_are_those_that_are_seen_through_links_too(tmp_path):
    for file in ("in/a", "in/.b", "in/.hidden/c", "out/d"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nowhere")
    assert files_below(tmp_path / "in") == {"a": tmp_path / "in" / "a", "link/d": tmp_path / "out" / "d"}
    assert files_below(tmp_path / "in" / "a") == {".": tmp_path / "in" / "a"}
